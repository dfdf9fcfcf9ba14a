from django.apps import AppConfig
from django.core.checks import register


class RerankConfig(AppConfig):
    name = "rerank"
    verbose_name = "Reranking"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from rerank.checks import check_settings

        register(check_settings)
