"""The hard ones of the fault campaigns (tests/faults), on the lab that is up: a test for every cell that can be done here.

LMO's programs are exchanged for those with fault points while these run (build preset `faults`); LMO_FAULTS_BUILD names
another build directory. Without such a build that is a failure: these are what the cutover stands on."""
import os
import pathlib
import sys
import unittest

FAULTS = pathlib.Path(__file__).resolve().parents[1] / "faults"
sys.path.insert(0, str(FAULTS))
import harness  # noqa: E402
import report  # noqa: E402
import scenario  # noqa: E402
from targets.lab import Lab  # noqa: E402


class Hard(unittest.TestCase):
    target = None

    @classmethod
    def setUpClass(cls):
        cls.target = Lab(os.environ.get("LMO_FAULTS_BUILD", harness.TREE / "build" / "faults"))
        if not cls.target.has_points:
            raise AssertionError(f"no programs with fault points in {cls.target.build}/bin (make faults-build)")
        cls.target.up()

    @classmethod
    def tearDownClass(cls):
        cls.target.down()

    def carry_out(self, cell):
        result = report.Result(cell.ident, cell.campaign, cell.phase, cell.point, cell.fault, "lab", True)
        self.target.carry_out(cell, result)
        self.assertEqual((result.problems, result.skipped), ([], ""), cell.about)


def add_tests():
    for cell in scenario.load(["hard"]):
        if "lab" in cell.targets:
            name = "test_" + cell.ident.replace("-", "_")
            setattr(Hard, name, lambda self, cell=cell: self.carry_out(cell))


add_tests()
