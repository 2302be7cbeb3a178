import sys
from pathlib import Path

# The helpers beside the tests are imported as tests.simulation.*, the name under which mypy knows them. Behind
# everything else, so that the top-level folders do not hide a package.
sys.path.append(str(Path(__file__).parents[2]))
