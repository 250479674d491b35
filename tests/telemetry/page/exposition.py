"""Pages read back by another's parser, which takes none that is malformed."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, frozenset[tuple[str, str]]]


def read(page: str) -> dict[Series, float]:
    """Every series once; a family has one head and lies in one piece."""
    found: dict[Series, float] = {}
    families: list[str] = []
    for family in text_string_to_metric_families(page):
        families.append(family.name)
        assert family.documentation, family.name
        assert family.type != "unknown", family.name
        for each in family.samples:
            series = (each.name, frozenset(each.labels.items()))
            assert series not in found, series
            found[series] = each.value
    assert len(set(families)) == len(families)
    heads = [line for line in page.splitlines() if line.startswith("# TYPE ")]
    assert len(heads) == len(families)
    return found


def value(page: str, name: str, **labels: str) -> float | None:
    """Of the one series with at least these labels; None: there is none."""
    wanted = frozenset(labels.items())
    known = [number for (each, of), number in read(page).items() if each == name and wanted <= of]
    assert len(known) <= 1, known
    return known[0] if known else None
