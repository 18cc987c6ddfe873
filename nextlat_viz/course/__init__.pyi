from .checking import Verdict as Verdict
from .checking import check as check
from .checking import hint as hint
from .checking import solution as solution
from .exercise import Exercise as Exercise
from .prediction import predict as predict
from .record import progress as progress
