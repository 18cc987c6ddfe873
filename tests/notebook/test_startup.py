import json
import subprocess
import sys


def test_the_first_widget_waits_for_nothing_it_does_not_use():
    code = "import json, sys, nextlat_viz as nlv; nlv.LatentExplorer; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    # Grammars of web addresses, the training engine, compilers of UMAP: seconds each.
    assert not {"lark", "lightning_fabric", "numba", "umap", "sklearn", "tyro"} & set(json.loads(out))
