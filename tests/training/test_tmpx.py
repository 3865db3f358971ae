import pytest
def test_x(tiny_export): print(tiny_export.report)
