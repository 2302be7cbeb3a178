import sys
from pathlib import Path

# As in tests/simulation: the modules beside the tests are imported as tests.mutants.*, behind everything else.
sys.path.append(str(Path(__file__).parents[2]))
