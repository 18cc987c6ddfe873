from .panels.training import LossMonitor as LossMonitor
from .panels.world import EpisodeStepper as EpisodeStepper
from .state import ViewState as ViewState
from .widgets import LatentExplorer as LatentExplorer
from .widgets import ProbeLab as ProbeLab
from .widgets import TrajectoryCompare as TrajectoryCompare
