from django.apps import AppConfig
from django.core.checks import Tags, register
from django.db.backends.signals import connection_created


class MemoryConfig(AppConfig):
    name = "memory"
    verbose_name = "Memory"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from keys import movers
        from memory import checks
        from memory.access.bound_statements import wrap_statements
        from memory.index.missing_macs import check_row_macs
        from memory.index.stale_settings import check_stale_indexes
        from memory.rotation.encryption_key import EncryptionKeyMover
        from memory.rotation.hmac_key import HMACKeyMover

        movers.register(EncryptionKeyMover(), HMACKeyMover())
        register(checks.check_tenant_models, Tags.models)
        register(checks.check_limits)
        register(checks.check_ranges)
        register(checks.check_language)
        register(checks.check_embedding)
        register(check_stale_indexes, Tags.database)
        register(check_row_macs, Tags.database)
        register(checks.check_rates)
        register(checks.check_middleware, Tags.security)
        connection_created.connect(wrap_statements)
