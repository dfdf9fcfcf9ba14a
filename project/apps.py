from django.apps import AppConfig


class ProjectConfig(AppConfig):
    name = "project"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from keys import heartbeat

        from . import checks  # noqa: F401 (registers them)
        from .dashboard import recorder

        heartbeat.accompany(recorder.thread)
