from django.apps import AppConfig


class RerankConfig(AppConfig):
    name = "rerank"
    default_auto_field = "django.db.models.BigAutoField"
