"""Real faults: kills, a full disk, a server that loses its answers. `make faults` runs them; all else skips them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.programs import Programs

WHY = "real faults take minutes: type `make faults`"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = "faults" in str(config.option.markexpr)
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)
            if not asked:
                item.add_marker(pytest.mark.skip(reason=WHY))


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """Whole programs in an empty folder."""
    return Programs(tmp_path)
