import sys
from pathlib import Path

# The world beside the tests is imported by its name.
sys.path.insert(0, str(Path(__file__).parent))
