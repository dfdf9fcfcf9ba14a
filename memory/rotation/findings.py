"""The findings of an inspection. Each names its kind, the tenant's prefix and the row, never any content."""

from collections.abc import Iterable
from dataclasses import dataclass, field

UNREADABLE, UNKNOWN_KEY, COLUMNS = "unreadable", "unknown key", "columns"
ALTERED, INDEX_ALTERED, NO_MAC, ROW_SET = "altered", "index altered", "no mac", "row set"
VECTOR, KEYWORDS, LABELS, POSTINGS = "vector", "keywords", "labels", "postings"
COUNT, EXPIRING, USER_ID, ORPHANS, KNOWN_TWICE = "count", "expiring", "user id", "orphans", "known twice"

MOST_KEPT = 1_000


@dataclass(frozen=True)
class Finding:
    """A defect that an inspection found. `tenant` is the first 8 hex of the hash; `detail` holds no content."""

    kind: str
    tenant: str
    row: str
    key_id: str
    detail: str
    table: str = "memory_chunks"

    def __str__(self) -> str:
        where = f"tenant {self.tenant}" + (f", row {self.row}" if self.row else "")
        return f"{self.kind}: {where} (key {self.key_id or '–'}): {self.detail}"


@dataclass
class Inspection:
    """The outcome of an inspection: how much was inspected, the number of findings, and the first thousand of them.

    `drifted` rows open under another key than the one they name. `without_mac` rows, and `without_set` tenants, are
    from before rows had MACs, and accepted (MEMORY_ACCEPT_ROWS_WITHOUT_MAC).
    """

    tenants: int = 0
    rows: int = 0
    drifted: int = 0
    without_mac: int = 0
    without_set: int = 0
    found: int = 0
    findings: list[Finding] = field(default_factory=list)

    def report(self, findings: Iterable[Finding]) -> None:
        """Count findings, and keep them while there is room."""
        for finding in findings:
            self.found += 1
            if len(self.findings) < MOST_KEPT:
                self.findings.append(finding)

    def add(self, other: "Inspection") -> None:
        """Take another inspection's figures and findings in."""
        self.tenants += other.tenants
        self.rows += other.rows
        self.drifted += other.drifted
        self.without_mac += other.without_mac
        self.without_set += other.without_set
        self.report(other.findings)
        self.found += other.found - len(other.findings)
