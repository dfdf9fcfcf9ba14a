"""Models of key ids, serving processes, leases and rotations. No row belongs to a tenant or holds key material.

These tables record facts: what processes reported, how much was sealed, how far a run came. Which key is in use follows
from the environment and the rows (`keys.status`), never from a column that a person sets.
"""

from datetime import timedelta

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Purpose(models.TextChoices):
    """What a key is for."""

    ENCRYPTION = "encryption", "encryption"
    HMAC = "hmac", "tenant HMAC"


class KeyRecord(models.Model):
    """A key id that some process held at some time, and its seals (see `keys.nonce_budget`)."""

    key_id = models.TextField(primary_key=True)
    purpose = models.TextField(choices=Purpose)
    seals = models.BigIntegerField(default=0, db_default=0)
    first_seen = models.DateTimeField(db_default=Now(), editable=False)
    last_seen = models.DateTimeField(db_default=Now())
    # When a verified rotation found no row under it any more; cleared when seals under it are counted again.
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["purpose", "-last_seen"]
        verbose_name = "key"

    def __str__(self) -> str:
        return self.key_id


class ProcessHeartbeat(models.Model):
    """A serving process and the ids of the keys it holds, as it reported them itself."""

    process = models.UUIDField(primary_key=True)
    host = models.TextField()
    pid = models.IntegerField()
    role = models.TextField()
    sealing_key_id = models.TextField()
    encryption_key_ids = ArrayField(models.TextField())
    hmac_current_key_id = models.TextField()
    hmac_key_ids = ArrayField(models.TextField())
    started_at = models.DateTimeField(db_default=Now(), editable=False)
    seen_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["host", "pid"]
        verbose_name = "process"
        verbose_name_plural = "processes"

    def __str__(self) -> str:
        return f"{self.role} {self.host}:{self.pid}"

    def holds(self, purpose: Purpose) -> list[str]:
        """The ids of its keys of a purpose."""
        return self.encryption_key_ids if purpose == Purpose.ENCRYPTION else self.hmac_key_ids

    def current(self, purpose: Purpose) -> str:
        """The id of the key that its new rows name."""
        return self.sealing_key_id if purpose == Purpose.ENCRYPTION else self.hmac_current_key_id


class Lease(models.Model):
    """Work that one process at a time may do, until `expires_at` unless renewed (see `keys.leases`)."""

    name = models.TextField(primary_key=True)
    holder = models.TextField()
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name} held by {self.holder}"


class RotationRun(models.Model):
    """One rotation, from the request to its verified end. A run that was interrupted goes on where it stopped."""

    class State(models.TextChoices):
        REQUESTED = "requested", "requested"
        RUNNING = "running", "running"
        INTERRUPTED = "interrupted", "interrupted"
        FINISHED = "finished", "finished"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    OPEN = (State.REQUESTED, State.RUNNING, State.INTERRUPTED)
    # A worker saves its progress every second or so; one that is silent this long has died or lost its database.
    SILENT_AFTER = timedelta(seconds=60)

    kind = models.TextField(choices=Purpose)
    state = models.TextField(choices=State, default=State.REQUESTED)
    phase = models.TextField(blank=True, default="")
    from_key_ids = ArrayField(models.TextField(), default=list, blank=True)
    to_key_id = models.TextField(blank=True, default="")
    tenant_cursor = models.TextField(blank=True, default="")
    rows_total = models.BigIntegerField(default=0)
    rows_done = models.BigIntegerField(default=0)
    rows_failed = models.BigIntegerField(default=0)
    rate = models.FloatField(default=0.0, help_text="rows per second")
    requested_by = models.TextField(blank=True, default="")
    started_by = models.TextField(blank=True, default="")
    # Whoever works on the run stops, and closes it as cancelled, once this names somebody.
    cancelled_by = models.TextField(blank=True, default="", db_default="")
    requested_at = models.DateTimeField(db_default=Now(), editable=False)
    started_at = models.DateTimeField(null=True, blank=True)
    updated_at = models.DateTimeField(auto_now=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    verified = models.BooleanField(default=False)
    message = models.TextField(blank=True, default="")
    # Of the first rows that failed: table, row id, tenant prefix, key id, reason. Never content.
    failures = models.JSONField(default=list, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = "rotation run"
        constraints = [
            models.UniqueConstraint(
                fields=["kind"],
                condition=Q(state__in=["requested", "running", "interrupted"]),
                name="keys_one_open_run_a_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} rotation {self.pk}"

    @property
    def share(self) -> float:
        """How much of the present phase is done, 0 to 1."""
        return (
            min(1.0, self.rows_done / self.rows_total) if self.rows_total else float(self.state == self.State.FINISHED)
        )

    @property
    def seconds_left(self) -> float | None:
        """Until the present phase ends, at the present rate; None unless rows are being done."""
        if self.state != self.State.RUNNING or not self.rate or self.rows_total <= self.rows_done:
            return None
        return (self.rows_total - self.rows_done) / self.rate


class JobRecord(models.Model):
    """A maintenance job (`keys.jobs`): who last asked for it, how far it is, and how it last ended.

    Whether it is asked for, runs or has ended follows from these facts and its lease, and is no column.
    """

    name = models.TextField(primary_key=True)
    requested_at = models.DateTimeField(null=True)
    requested_by = models.TextField(default="", db_default="")
    started_at = models.DateTimeField(null=True)
    started_by = models.TextField(default="", db_default="")
    done = models.BigIntegerField(default=0, db_default=0)
    total = models.BigIntegerField(default=0, db_default=0)
    finished_at = models.DateTimeField(null=True)
    succeeded = models.BooleanField(default=True, db_default=True)
    # What it found, in numbers. Never content.
    message = models.TextField(default="", db_default="")

    class Meta:
        verbose_name = "maintenance job"
        verbose_name_plural = "maintenance"

    def __str__(self) -> str:
        return self.name


class KeyTally(models.Model):
    """Rows by table and key id as they were last counted, which reads every row's key id (`keys.tallies`)."""

    purpose = models.TextField(primary_key=True, choices=Purpose)
    counts = models.JSONField(default=list)
    counted_at = models.DateTimeField(db_default=Now())
    seconds = models.FloatField(help_text="how long the counting took")

    def __str__(self) -> str:
        return f"rows by {self.purpose} key"
