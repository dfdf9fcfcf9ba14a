from django.apps import AppConfig
from django.core.checks import Tags, register


class KeysConfig(AppConfig):
    name = "keys"
    verbose_name = "Keys"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from keys.checks import check_key_ages, check_keys, check_nonce_budget

        register(check_keys, Tags.security)
        register(check_nonce_budget, Tags.database)
        register(check_key_ages, Tags.database)
