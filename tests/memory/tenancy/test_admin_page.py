"""The admin's list of tenants takes any page number it is given."""

import pytest
from django.test import Client

from tests.factories import ALICE, make_user, remember

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("page", ["", "1", "0", "-1", "²", "٣", "x", "9" * 30, "9" * 5000, "1e3"])
def test_any_page_number_is_answered(client: Client, page: str) -> None:
    remember(ALICE, "doc", "text")
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    assert client.get("/admin/memory/tenants/", {"page": page}).status_code == 200
