-- Logins with the least rights that do the job. Run it once, as a superuser, in the database of the clearinghouse,
-- before `clearinghouse migrate`; running it again changes the passwords to those of the files.
--
--   psql -v passwords=/etc/clearinghouse/secrets -d clearinghouse -f roles.sql
--
--   login                    may                                                          used by
--   clearinghouse_owner      change the schema                                            clearinghouse migrate
--   clearinghouse_service    read, and charge through one function; change nothing else   clearinghouse serve
--   clearinghouse_manager    manage gateways, keys and credit; change no ledger row       management API, commands
--   clearinghouse_worker     read, and keep record of jobs, alerts, notices, top-ups      clearinghouse work
--
-- Each password is read from a file `db_LOGIN_password` in the directory `passwords`, so that it stands in no command.
\set ON_ERROR_STOP on
\if :{?passwords}
\else
  \set passwords /run/secrets
\endif
\setenv CLEARINGHOUSE_PASSWORDS :passwords
\set owner_password `cat "$CLEARINGHOUSE_PASSWORDS/db_owner_password"`
\set service_password `cat "$CLEARINGHOUSE_PASSWORDS/db_service_password"`
\set manager_password `cat "$CLEARINGHOUSE_PASSWORDS/db_manager_password"`
\set worker_password `cat "$CLEARINGHOUSE_PASSWORDS/db_worker_password"`
SELECT length(:'owner_password') < 16 OR length(:'service_password') < 16 OR length(:'manager_password') < 16
       OR length(:'worker_password') < 16 AS password_is_missing \gset
\if :password_is_missing
  DO $$ BEGIN RAISE EXCEPTION 'a db_*_password file is missing, or its password has fewer than 16 characters'; END $$;
\endif

-- Passwords are part of the statements below: keep them out of the server's log.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';

SELECT format('CREATE ROLE %I', name)
  FROM unnest(ARRAY['clearinghouse_serve', 'clearinghouse_admin', 'clearinghouse_work', 'clearinghouse_owner',
                    'clearinghouse_service', 'clearinghouse_manager', 'clearinghouse_worker']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

-- The owner needs CREATEROLE because a migration makes the three group roles wherever they are missing.
ALTER ROLE clearinghouse_owner LOGIN CREATEROLE PASSWORD :'owner_password';
ALTER ROLE clearinghouse_service LOGIN PASSWORD :'service_password' CONNECTION LIMIT 100;
ALTER ROLE clearinghouse_manager LOGIN PASSWORD :'manager_password' CONNECTION LIMIT 50;
ALTER ROLE clearinghouse_worker LOGIN PASSWORD :'worker_password' CONNECTION LIMIT 50;
GRANT clearinghouse_serve TO clearinghouse_service, clearinghouse_owner;
GRANT clearinghouse_admin TO clearinghouse_manager, clearinghouse_owner;
-- The manager too: `clearinghouse jobs run` does a job by hand.
GRANT clearinghouse_work TO clearinghouse_worker, clearinghouse_manager, clearinghouse_owner;

-- Who owns the database owns its schema public, from PostgreSQL 15 on. Nobody else may so much as connect.
ALTER DATABASE :"DBNAME" OWNER TO clearinghouse_owner;
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO clearinghouse_serve, clearinghouse_admin, clearinghouse_work;
-- For what Stripe has, while `clearinghouse reconcile report` holds the books against it.
GRANT TEMPORARY ON DATABASE :"DBNAME" TO clearinghouse_admin;
