"""`manage.py create_token`: an access token for a person or a service, printed once."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from memory.access.scopes import ALL
from memory.access.tokens import ACT_FOR_USERS, MAX_DAYS, AccessToken, ServiceAccount


class Command(BaseCommand):
    help = (
        "Make an access token and print it, once, on standard output. An account that is missing is made, "
        "without a password."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        owner = parser.add_mutually_exclusive_group(required=True)
        owner.add_argument("--user", metavar="NAME", help="a person's account: the token reaches that person's memory")
        owner.add_argument("--service", metavar="NAMESPACE", help="a service's account")
        parser.add_argument(
            "--act-for-users", action="store_true", help="let the service name its users in X-Memory-User"
        )
        parser.add_argument(
            "--rate",
            metavar="RATE",
            help="the service's budget for all of its tokens, such as 20000/min; empty: MEMORY_THROTTLE_TOKEN for each",
        )
        parser.add_argument("--expires", type=int, metavar="DAYS", help="0 for never; MEMORY_TOKEN_DAYS when not given")
        parser.add_argument(
            "--scope",
            action="append",
            choices=ALL,
            dest="scopes",
            help="what it may do, once for each; all when not given",
        )
        parser.add_argument("--label", default="", help="what the token is for")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["act_for_users"] and not options["service"]:
            raise CommandError("--act-for-users goes with --service: a person's token reaches that person only.")
        if options["rate"] is not None and not options["service"]:
            raise CommandError("--rate goes with --service.")
        try:
            with transaction.atomic():
                account = self._service(options) if options["service"] else self._account(options["user"])
                token, secret = AccessToken.objects.issue(
                    user=account,
                    label=options["label"],
                    expires_in=_lifetime(options["expires"]),
                    scopes=options["scopes"] or ALL,
                )
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from None
        self.stderr.write(f"Token for {account.get_username()}, expires {token.expiry or 'never'}. Shown only now:")
        self.stdout.write(secret)

    def _service(self, options: dict[str, Any]) -> Any:
        namespace = options["service"]
        service = ServiceAccount.objects.filter(namespace=namespace).select_related("user").first()
        if service is None:
            service = self._new_service(namespace)
        if service.user is None:
            raise CommandError("The account that had this namespace is deleted: a namespace is never used twice.")
        if not service.user.is_active:
            raise CommandError("The account is inactive.")
        if options["rate"] is not None:
            service.rate = options["rate"]
            service.full_clean()
            service.save(update_fields=["rate"])
        if options["act_for_users"]:
            permission = Permission.objects.get(codename=ACT_FOR_USERS, content_type__app_label="memory")
            service.user.user_permissions.add(permission)
        return service.user

    def _new_service(self, namespace: str) -> ServiceAccount:
        name = f"service-{namespace}"
        if get_user_model().objects.filter(username=name).exists():
            raise CommandError(f"The account {name} is a person's: make its service in the admin, or delete it.")
        service = ServiceAccount(namespace=namespace, user=self._account(name))
        service.full_clean()
        service.save()
        return service

    def _account(self, name: str) -> Any:
        user_model = get_user_model()
        account = user_model.objects.filter(username=name).first()
        if account is None:
            account = user_model(username=name)
            account.set_unusable_password()
            account.full_clean(exclude=["password"])
            account.save()
            self.stderr.write(f"Made the account {name}, without a password.")
        elif not account.is_active:
            raise CommandError("The account is inactive.")
        return account


def _lifetime(days: int | None) -> timedelta | None:
    days = settings.MEMORY_TOKEN_DAYS if days is None else days
    if not 0 <= days <= MAX_DAYS:
        raise CommandError(f"--expires (or MEMORY_TOKEN_DAYS) takes 1 to {MAX_DAYS} days, or 0 for never.")
    return timedelta(days=days) if days else None
