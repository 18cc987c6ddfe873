import json
import subprocess
import sys


def test_the_first_widget_imports_only_what_it_uses():
    code = "import json, sys, nextlat_viz as nlv; nlv.LatentExplorer; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    # These take seconds each: grammars of web addresses, the training engine, compilers of UMAP.
    assert not {"lark", "lightning_fabric", "numba", "umap", "sklearn", "tyro"} & set(json.loads(out))


def test_a_studio_opens_without_torchs_compiler():
    code = "import sys, nextlat_viz as nlv; nlv.studio(); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    # Two thousand modules that no model here needs.
    assert not {"torch._dynamo", "sympy", "torch.distributed.fsdp", "umap", "sklearn"} & set(out.split())
