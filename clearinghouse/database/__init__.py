"""PostgreSQL: the embedded server, migrations, and connections with the least privilege that does the job."""
