"""Let the census see by which recipe a tenant was indexed."""

from django.db import migrations

from memory.tenancy.policies import GrantCensus


class Migration(migrations.Migration):
    dependencies = [("memory", "0006_recipes")]

    operations = [GrantCensus("Tenant", ["recipe"])]
