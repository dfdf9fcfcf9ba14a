"""The Django database backend (`ENGINE = "project.database"`), its roles and the SQL that sets them up."""
