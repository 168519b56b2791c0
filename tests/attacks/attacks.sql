-- SQL attacks on a face. `--! class / name` begins one; each line after it is sent as one query string, in one session,
-- whatever fails. The harness runs all of them as each restricted person, in three ways of the protocol, and looks for
-- canaries in every byte that comes back. Classes: direct, qualified, face, key, catalogue, statistics, activity, oracle,
-- ordering, grouping, join, whole-row, json, xml, set, cte, ddl, temp, function, cast, setting, encoding, copy, cursor,
-- prepared, transaction, notify, lob, explain, lock, file, extension, replication, write, operator, dos, syntax.

--! direct / every column of every table
SELECT * FROM users LIMIT 50
SELECT * FROM devices LIMIT 50
SELECT * FROM payments LIMIT 50
SELECT * FROM watch_history LIMIT 50
SELECT * FROM messages LIMIT 50
SELECT * FROM profiles LIMIT 5
--! direct / TABLE command
TABLE users
--! direct / named columns
SELECT email, phone, full_name, birth_date FROM users LIMIT 20
SELECT device_id, ip, last_lat, last_lon FROM devices LIMIT 20
SELECT card_last4, amount_cents, paid_at FROM payments LIMIT 20
SELECT user_id, video_id, watched_at, seconds FROM watch_history LIMIT 20
SELECT body FROM messages LIMIT 20
--! direct / ONLY and star expansion
SELECT * FROM ONLY users LIMIT 5
SELECT (users).* FROM users LIMIT 5
SELECT (u).email FROM users u LIMIT 5
--! direct / tablesample
SELECT * FROM users TABLESAMPLE SYSTEM (100) LIMIT 5
SELECT * FROM public.users TABLESAMPLE BERNOULLI (100) LIMIT 5
--! direct / system columns
SELECT ctid, xmin, cmin, xmax, cmax, tableoid FROM users LIMIT 5
SELECT tableoid::regclass FROM users LIMIT 1
--! qualified / base tables by schema
SELECT * FROM public.users LIMIT 5
SELECT email FROM "public"."users" LIMIT 5
SELECT * FROM public.messages LIMIT 5
SELECT * FROM us.public.users LIMIT 5
SELECT public.users.email FROM public.users LIMIT 1
--! qualified / unicode-escaped identifiers
SELECT * FROM U&"\0070ublic".users LIMIT 1
SELECT U&"\0065mail" FROM U&"p\0075blic".users LIMIT 1
--! qualified / three names and casts
SELECT * FROM "us"."public"."users" LIMIT 1
SELECT 'public.users'::regclass
SELECT to_regclass('public.users'), to_regclass('users')::oid
--! qualified / information_schema
SELECT * FROM information_schema.columns WHERE table_name = 'users'
SELECT * FROM information_schema.views
SELECT * FROM information_schema.column_privileges LIMIT 50
SELECT * FROM information_schema.role_table_grants LIMIT 50
SELECT * FROM information_schema.view_column_usage LIMIT 50
SELECT * FROM information_schema.routines WHERE routine_schema <> 'pg_catalog' AND routine_schema <> 'information_schema'
--! face / other people's faces
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'rf\_%'
SELECT schemaname, viewname, definition FROM pg_views WHERE schemaname LIKE 'rf\_%'
SELECT relname, pg_get_viewdef(oid) FROM pg_class WHERE relkind = 'v' AND relname IN ('users', 'messages', 'payments')
--! face / rules and policies
SELECT * FROM pg_rules WHERE schemaname LIKE 'rf\_%'
SELECT * FROM pg_policies
SELECT polname, pg_get_expr(polqual, polrelid) FROM pg_policy
SELECT * FROM pg_policy
SELECT * FROM pg_rewrite
SELECT pg_get_ruledef(oid) FROM pg_rewrite
SELECT view_definition FROM information_schema.views
SELECT polname, pg_get_expr(polwithcheck, polrelid, true), polqual::text FROM pg_policy
SELECT attrelid::regclass, attname FROM pg_attribute WHERE attrelid::regclass::text LIKE 'ringfence.%'
--! face / own owner role
SET ROLE postgres
SELECT rolname FROM pg_roles WHERE rolname LIKE 'rf\_%'
SELECT * FROM pg_authid LIMIT 1
SELECT * FROM pg_shadow LIMIT 1
SELECT * FROM pg_auth_members LIMIT 5
--! key / the mask key
SELECT * FROM ringfence.mask_key
SELECT inner_pad FROM ringfence.mask_key
TABLE ringfence.mask_key
SELECT * FROM ringfence.faces
SELECT * FROM ringfence.undo
COPY (SELECT * FROM ringfence.mask_key) TO STDOUT
--! key / by way of the view's formula
SELECT sha256((SELECT k.outer_pad FROM ringfence.mask_key k) || 'x'::bytea)
SELECT encode(sha256(convert_to('guess@example.com', 'UTF8')), 'hex') = left(email, 16) FROM users LIMIT 1
--! key / length extension and guesses
SELECT count(*) FROM users WHERE email = encode(sha256('a'), 'hex') || '@masked.invalid'
--! catalogue / definitions
SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
SELECT prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') LIMIT 20
SELECT pg_get_constraintdef(oid) FROM pg_constraint LIMIT 20
SELECT pg_get_indexdef(indexrelid), pg_get_expr(indpred, indrelid) FROM pg_index LIMIT 200
SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef LIMIT 20
SELECT pg_get_triggerdef(oid) FROM pg_trigger LIMIT 20
SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext LIMIT 5
--! catalogue / comments and labels
SELECT * FROM pg_description WHERE objoid = 'public.users'::regclass
SELECT col_description((SELECT oid FROM pg_class WHERE relname = 'users' AND relkind = 'r'), 4), obj_description(oid) FROM pg_class WHERE relname = 'users'
SELECT * FROM pg_seclabel LIMIT 5
--! catalogue / enum values and ranges
SELECT * FROM pg_enum LIMIT 5
SELECT * FROM pg_range LIMIT 5
--! catalogue / default acl and settings
SELECT * FROM pg_db_role_setting
SELECT * FROM pg_settings WHERE name LIKE '%search_path%' OR name LIKE '%password%'
SELECT * FROM pg_file_settings LIMIT 5
SELECT * FROM pg_hba_file_rules LIMIT 5
SELECT * FROM pg_ident_file_mappings LIMIT 5
SELECT * FROM pg_config() LIMIT 5
--! catalogue / foreign servers and subscriptions
SELECT * FROM pg_foreign_server
SELECT * FROM pg_user_mapping
SELECT * FROM pg_subscription
SELECT * FROM pg_user_mappings
--! catalogue / large rows of pg_class
SELECT relname, reltuples, relacl FROM pg_class WHERE relname = 'users'
SELECT pg_relation_filepath('public.users'), pg_relation_size('public.users')
SELECT pg_total_relation_size(oid), pg_table_size(oid) FROM pg_class WHERE relname = 'messages'
--! statistics / most common values
SELECT * FROM pg_stats WHERE tablename IN ('users', 'messages', 'payments', 'devices')
SELECT * FROM pg_statistic LIMIT 10
SELECT stavalues1 FROM pg_statistic LIMIT 10
SELECT most_common_vals::text, histogram_bounds::text FROM pg_stats WHERE attname = 'email'
--! statistics / extended
SELECT * FROM pg_statistic_ext_data LIMIT 5
SELECT * FROM pg_stats_ext LIMIT 5
SELECT * FROM pg_stats_ext_exprs LIMIT 5
--! statistics / through functions
SELECT pg_stat_get_live_tuples('public.users'::regclass)
SELECT * FROM pg_stat_user_tables LIMIT 20
SELECT * FROM pg_stat_user_functions LIMIT 20
SELECT * FROM pg_statio_user_tables LIMIT 20
--! activity / other sessions
SELECT pid, usename, query, application_name, client_addr FROM pg_stat_activity
SELECT * FROM pg_stat_get_activity(NULL)
SELECT pg_stat_get_backend_activity(s) FROM pg_stat_get_backend_idset() s
SELECT * FROM pg_stat_statements LIMIT 5
SELECT * FROM pg_stat_ssl
SELECT * FROM pg_stat_gssapi
--! activity / own session's corners
SELECT * FROM pg_prepared_statements
SELECT * FROM pg_cursors
SELECT * FROM pg_prepared_xacts
SELECT * FROM pg_locks LIMIT 20
SELECT current_query()
--! activity / cancel and terminate others
SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
SELECT pg_log_backend_memory_contexts(pid) FROM pg_stat_activity
--! oracle / cast errors
SELECT email::int FROM users LIMIT 1
SELECT (email || '')::numeric FROM users LIMIT 1
SELECT full_name::date FROM users LIMIT 1
SELECT phone::uuid FROM users LIMIT 1
SELECT CAST(body AS int) FROM messages LIMIT 1
SELECT card_last4::int FROM payments LIMIT 1
--! oracle / division by zero
SELECT 1 / (CASE WHEN email LIKE 'C%' THEN 0 ELSE 1 END) FROM users
SELECT 1 / (id - id) FROM users WHERE full_name LIKE 'C%'
--! oracle / overflow
SELECT amount_cents * 9223372036854775807 FROM payments LIMIT 1
SELECT exp(amount_cents) FROM payments LIMIT 1
SELECT power(10, amount_cents) FROM payments LIMIT 1
SELECT birth_date + 2147483647 FROM users LIMIT 1
--! oracle / errors pushed below the view
SELECT * FROM users WHERE email::int = 1 LIMIT 1
SELECT * FROM users u WHERE (SELECT u.phone::int) = 1
SELECT * FROM users WHERE substring(email FROM '(') = 'x'
SELECT * FROM users ORDER BY email::int
SELECT * FROM users WHERE 1 = length(email)::int / (length(email) - length(email))
--! oracle / error texts of json and xml
SELECT email::json FROM users LIMIT 1
SELECT ('{' || email || '}')::jsonb FROM users LIMIT 1
SELECT xpath('/a', ('<a>' || email)::xml) FROM users LIMIT 1
SELECT json_populate_record(NULL::users, '{"email": 1}')
--! oracle / arrays and ranges
SELECT ('{' || full_name)::text[] FROM users LIMIT 1
SELECT int4range(length(email), 0) FROM users LIMIT 1
SELECT email::inet FROM users LIMIT 1
SELECT email::regclass FROM users LIMIT 1
SELECT email::regrole FROM users LIMIT 1
SELECT email::regtype FROM users LIMIT 1
SELECT full_name::regproc FROM users LIMIT 1
--! oracle / functions that print their argument on error
SELECT to_date(email, 'YYYY') FROM users LIMIT 1
SELECT to_number(full_name, '999') FROM users LIMIT 1
SELECT decode(email, 'hex') FROM users LIMIT 1
SELECT convert_from(decode(email, 'escape'), 'UTF8') FROM users LIMIT 1
SELECT set_byte(email::bytea, 100000, 1) FROM users LIMIT 1
SELECT timezone(email, now()) FROM users LIMIT 1
SELECT date_trunc(email, now()) FROM users LIMIT 1
SELECT encode('a', email) FROM users LIMIT 1
SELECT to_tsquery(email) FROM users LIMIT 1
SELECT ts_rewrite(to_tsquery('a'), email) FROM users LIMIT 1
SELECT parse_ident(email) FROM users LIMIT 1
SELECT format('%I %L', email, email) FROM users LIMIT 1
SELECT lo_get(email::oid) FROM users LIMIT 1
SELECT has_table_privilege(email, 'public.users', 'select') FROM users LIMIT 1
SELECT current_setting(email) FROM users LIMIT 1
SELECT regexp_replace('a', email, 'b') FROM users LIMIT 1
SELECT similar_to_escape(email) FROM users LIMIT 1
SELECT normalize(email, NFC) FROM users LIMIT 1
--! ordering / by hidden order
SELECT id FROM users ORDER BY email LIMIT 20
SELECT id FROM users ORDER BY full_name DESC LIMIT 20
SELECT id FROM users ORDER BY birth_date, id LIMIT 20
SELECT id, email FROM users ORDER BY 2 LIMIT 20
SELECT email FROM users ORDER BY 1 COLLATE "C" LIMIT 20
--! ordering / min and max
SELECT min(email), max(email), min(phone), max(full_name), min(birth_date), max(birth_date) FROM users
SELECT min(amount_cents), max(amount_cents), min(paid_at), max(paid_at) FROM payments
SELECT min(last_lat), max(last_lon), min(ip), max(ip) FROM devices
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY email) FROM users
SELECT mode() WITHIN GROUP (ORDER BY email) FROM users
--! grouping / by protected columns
SELECT email, count(*) FROM users GROUP BY email ORDER BY 2 DESC LIMIT 20
SELECT birth_date, count(*) FROM users GROUP BY birth_date
SELECT DISTINCT phone FROM users
SELECT DISTINCT ON (email) email, id FROM users LIMIT 20
SELECT country, email, count(*) FROM users GROUP BY GROUPING SETS ((country), (email), ()) LIMIT 30
SELECT email, count(*) FROM users GROUP BY CUBE (email, country) HAVING max(phone) IS NOT NULL LIMIT 20
SELECT string_agg(email, ',') FROM (SELECT email FROM users LIMIT 200) s
SELECT array_agg(DISTINCT full_name) FROM (SELECT full_name FROM users LIMIT 200) s
--! grouping / windows
SELECT lag(email) OVER (ORDER BY id), first_value(phone) OVER (PARTITION BY country) FROM users LIMIT 20
SELECT ntile(4) OVER (ORDER BY amount_cents), amount_cents FROM payments LIMIT 20
SELECT rank() OVER (ORDER BY birth_date), id FROM users LIMIT 20
--! join / on guessed values
SELECT u.id FROM users u JOIN (VALUES ('C'), ('CA')) g(x) ON u.email LIKE g.x || '%'
SELECT a.email, b.email FROM users a JOIN users b ON a.email = b.email AND a.id <> b.id LIMIT 20
SELECT u.*, p.* FROM users u NATURAL JOIN payments p LIMIT 20
SELECT * FROM users u LEFT JOIN messages m ON m.sender_id = u.id LIMIT 5
SELECT * FROM users u JOIN public.messages m ON m.sender_id = u.id LIMIT 5
SELECT * FROM devices d, LATERAL (SELECT u.email FROM users u WHERE u.id = d.user_id) x LIMIT 10
SELECT * FROM users FULL JOIN public.users p USING (id) LIMIT 5
--! join / semi and anti joins as oracles
SELECT count(*) FROM users WHERE email IN (SELECT handle || '@example.com' FROM profiles)
SELECT count(*) FROM users u WHERE EXISTS (SELECT 1 FROM public.messages m WHERE m.sender_id = u.id)
SELECT count(*) FROM users u WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.sender_id = u.id)
--! whole-row / records as text
SELECT users FROM users LIMIT 5
SELECT users::text FROM users LIMIT 5
SELECT row(u.*) FROM users u LIMIT 5
SELECT u FROM users u LIMIT 5
SELECT (SELECT u) FROM users u LIMIT 5
SELECT concat(u) FROM users u LIMIT 5
SELECT hash_record(u) FROM users u LIMIT 5
SELECT u::public.users FROM users u LIMIT 5
SELECT NULL::public.users
SELECT (NULL::public.users).email
SELECT record_send(u) FROM users u LIMIT 5
SELECT textsend(u.email), date_send(u.birth_date) FROM users u LIMIT 5
--! json / rows as json
SELECT row_to_json(u) FROM users u LIMIT 5
SELECT to_jsonb(u) FROM users u LIMIT 5
SELECT json_agg(u) FROM (SELECT * FROM users LIMIT 50) u
SELECT jsonb_object_agg(id, email) FROM (SELECT id, email FROM users LIMIT 50) s
SELECT jsonb_path_query(to_jsonb(u), '$.*') FROM users u LIMIT 5
SELECT json_object(array['email', email]) FROM users LIMIT 5
SELECT jsonb_each_text(to_jsonb(d)) FROM devices d LIMIT 5
SELECT * FROM jsonb_to_record((SELECT to_jsonb(u) FROM users u LIMIT 1)) AS x(email text, phone text)
--! xml / exporting functions
SELECT query_to_xml('select * from public.users limit 5', true, true, '')
SELECT query_to_xml('select * from users limit 5', true, true, '')
SELECT table_to_xml('public.users', true, true, '')
SELECT table_to_xml('users'::regclass, true, true, '')
SELECT schema_to_xml('public', true, true, '')
SELECT database_to_xml(true, true, '')
SELECT query_to_xmlschema('select * from public.users', true, true, '')
SELECT cursor_to_xml('c', 1, true, true, '')
SELECT pg_catalog.query_to_xml_and_xmlschema('select body from public.messages', true, true, '')
SELECT xmlforest(email, phone) FROM users LIMIT 5
SELECT xmlelement(name a, xmlattributes(email)) FROM users LIMIT 5
SELECT xmlagg(xmlelement(name e, email)) FROM users
SELECT xmlparse(document '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>')
SELECT * FROM xmltable('/a' PASSING '<a/>' COLUMNS b text)
--! set / union arms
SELECT handle FROM profiles UNION SELECT email FROM public.users
SELECT handle FROM profiles WHERE false UNION ALL SELECT email FROM users LIMIT 5
SELECT email FROM users INTERSECT SELECT email FROM public.users
SELECT email FROM users EXCEPT SELECT 'x' LIMIT 5
VALUES ((SELECT email FROM users LIMIT 1)), ((SELECT body FROM messages LIMIT 1))
SELECT NULL UNION SELECT body FROM public.messages
--! cte / nested and recursive
WITH users AS (SELECT * FROM public.users) SELECT * FROM users LIMIT 5
WITH a AS (SELECT * FROM users), b AS (SELECT * FROM a) SELECT email FROM b LIMIT 5
WITH RECURSIVE r(n, s) AS (SELECT 1, ''::text UNION ALL SELECT n + 1, s || (SELECT email FROM users ORDER BY id OFFSET n LIMIT 1) FROM r WHERE n < 20) SELECT s FROM r
WITH a AS MATERIALIZED (SELECT email FROM users) SELECT * FROM a LIMIT 5
WITH x AS (UPDATE users SET email = 'x' RETURNING *) SELECT * FROM x
WITH x AS (DELETE FROM public.users RETURNING *) SELECT * FROM x
WITH x AS (INSERT INTO users DEFAULT VALUES RETURNING *) SELECT * FROM x
--! ddl / making things
CREATE TABLE stolen AS SELECT * FROM users
SELECT * INTO stolen FROM users
CREATE VIEW v AS SELECT * FROM public.users
CREATE MATERIALIZED VIEW v AS SELECT * FROM users
CREATE FUNCTION f(text) RETURNS bool LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$
SELECT * FROM users WHERE f(email)
CREATE OPERATOR <<< (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)
CREATE AGGREGATE leak(text) (SFUNC = textcat, STYPE = text)
CREATE CAST (text AS int) WITH INOUT
CREATE DOMAIN d AS text CHECK (VALUE <> 'x')
CREATE TYPE t AS (a text)
CREATE RULE r AS ON SELECT TO users DO INSTEAD SELECT * FROM public.users
CREATE TRIGGER t BEFORE INSERT ON users EXECUTE FUNCTION f()
CREATE SCHEMA s
CREATE SEQUENCE s
CREATE STATISTICS s ON email, phone FROM public.users
CREATE POLICY p ON public.users USING (true)
CREATE PUBLICATION p FOR TABLE public.users
CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()
CREATE COLLATION c FROM "C"
CREATE TEXT SEARCH CONFIGURATION c (COPY = english)
--! ddl / changing what there is
ALTER TABLE public.users DISABLE ROW LEVEL SECURITY
ALTER VIEW users OWNER TO CURRENT_USER
ALTER VIEW users SET (security_barrier = false)
ALTER VIEW users RENAME TO u2
CREATE OR REPLACE VIEW users AS SELECT * FROM public.users
DROP VIEW users CASCADE
DROP POLICY ringfence_others ON public.users
GRANT SELECT ON public.users TO PUBLIC
REASSIGN OWNED BY CURRENT_USER TO postgres
COMMENT ON VIEW users IS 'x'
SECURITY LABEL ON VIEW users IS 'x'
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC
ALTER SYSTEM SET row_security = off
ALTER DATABASE us SET row_security = off
ALTER ROLE CURRENT_USER SET search_path = public
ALTER ROLE CURRENT_USER SET track_activities = on
ALTER ROLE CURRENT_USER BYPASSRLS
ALTER USER CURRENT_USER PASSWORD 'x'
--! ddl / hidden in DO and multi-statement strings
DO $$ BEGIN EXECUTE 'SELECT 1'; END $$
DO LANGUAGE plpgsql $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM public.users LIMIT 5 LOOP RAISE NOTICE '%', r; END LOOP; END $$
SELECT 1; SELECT email FROM public.users LIMIT 1
SELECT 1; SET search_path = public; SELECT email FROM users LIMIT 1
BEGIN; SET LOCAL search_path = public; SELECT email FROM users LIMIT 1; COMMIT
CALL f()
--! temp / shadowing
CREATE TEMP TABLE users (id int)
CREATE TEMP VIEW users AS SELECT * FROM public.users
SELECT * INTO TEMP t FROM users
CREATE TEMP TABLE t ON COMMIT DROP AS TABLE users
CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'select 1'
SELECT * FROM pg_temp.users
--! function / security definers and executors
SELECT ts_stat('select to_tsvector(email) from public.users')
SELECT * FROM ts_stat($$select to_tsvector(body) from public.messages$$)
SELECT ts_rewrite('a'::tsquery, 'select ''a''::tsquery, to_tsquery(email) from public.users limit 1')
SELECT * FROM crosstab('select 1, email, phone from public.users')
SELECT * FROM connectby('users', 'id', 'id', '1', 0) AS t(a text, b text, l int)
SELECT pg_catalog.set_config('search_path', 'public', false)
SELECT set_config('role', 'clips_app', false)
SELECT set_config('session_authorization', 'postgres', false)
SELECT set_config('row_security', 'off', false)
SELECT current_setting('search_path'), current_setting('role'), session_user, current_user
SELECT pg_get_serial_sequence('public.users', 'id'), nextval('public.users_id_seq')
SELECT currval('public.users_id_seq'), lastval()
SELECT setval('ringfence.undo_n_seq', 1)
SELECT pg_get_object_address('table', '{public,users}', '{}')
SELECT pg_identify_object(1259, 'public.users'::regclass, 0)
SELECT pg_describe_object(1259, (SELECT oid FROM pg_class WHERE relname = 'users' LIMIT 1), 0)
SELECT pg_extension_config_dump('public.users', '')
SELECT binary_upgrade_set_next_pg_type_oid(1)
SELECT pg_event_trigger_dropped_objects()
SELECT pg_read_file('/etc/passwd'), pg_ls_dir('.')
SELECT currtid2('public.users', '(0,1)')
SELECT pg_export_snapshot()
SELECT pg_snapshot_xmax(pg_current_snapshot()), txid_current()
SELECT pg_switch_wal(), pg_create_restore_point('x')
SELECT pg_reload_conf(), pg_rotate_logfile(), pg_current_logfile()
SELECT pg_backup_start('x')
SELECT pg_stat_reset(), pg_stat_reset_shared('bgwriter')
SELECT gin_clean_pending_list('users_email'), brin_summarize_new_values('users_email')
SELECT pg_index_column_has_property('public.users_pkey'::regclass, 1, 'asc')
SELECT inet_server_addr(), inet_client_addr(), pg_postmaster_start_time(), version()
SELECT getdatabaseencoding(), pg_client_encoding()
SELECT query_to_xml(format('select %s from public.users', 'email'), true, true, '')
SELECT pg_input_is_valid(email, 'int') FROM users LIMIT 1
SELECT fmgr_sql_validator(1), plpgsql_call_handler()
SELECT has_column_privilege('public.users', 'email', 'select'), has_schema_privilege('public', 'usage')
SELECT generate_series(1, 3), unnest(array_agg(email)) FROM (SELECT email FROM users LIMIT 3) s
SELECT dblink_connect('dbname=us'), dblink('dbname=us', 'select email from users')
--! function / encodings of values
SELECT encode(email::bytea, 'base64'), encode(convert_to(phone, 'UTF16'), 'hex') FROM users LIMIT 5
SELECT md5(email), sha256(email::bytea), hashtext(email), hashtextextended(full_name, 1) FROM users LIMIT 5
SELECT ascii(email), chr(ascii(full_name)), reverse(email), upper(full_name), translate(email, 'a', 'b') FROM users LIMIT 5
SELECT string_to_table(email, NULL), regexp_split_to_table(full_name, '') FROM users LIMIT 30
SELECT to_tsvector(email), to_tsvector(full_name) FROM users LIMIT 5
SELECT bit_and(amount_cents), bit_xor(amount_cents), sum(amount_cents), avg(amount_cents), stddev(amount_cents) FROM payments
SELECT corr(last_lat, last_lon), regr_slope(last_lat, last_lon), avg(last_lat) FROM devices
SELECT extract(epoch FROM paid_at), extract(doy FROM paid_at), to_char(paid_at, 'YYYY-MM-DD HH24:MI:SS') FROM payments LIMIT 5
SELECT extract(day FROM birth_date), age(birth_date), isfinite(birth_date), birth_date - '2000-01-01'::date FROM users LIMIT 5
SELECT family(ip), masklen(ip), host(ip), network(ip), ip + 1, ip & '255.0.0.0' FROM devices LIMIT 5
--! cast / row types and domains
SELECT u::text::public.users FROM users u LIMIT 1
SELECT ROW(1, 'US')::public.users
SELECT '(1,US,2020-01-01,a,b,c,2020-01-01)'::public.users
SELECT CAST(u AS record) FROM users u LIMIT 1
SELECT array(SELECT u FROM users u LIMIT 5)
SELECT array(SELECT email FROM users LIMIT 100)
SELECT (array_agg(u))[1] FROM (SELECT * FROM users LIMIT 3) u
SELECT (array(SELECT u FROM users u LIMIT 3))[1].email
--! setting / search path and role
SET search_path = public
SET search_path TO public, pg_temp
SET LOCAL search_path = public
SET SCHEMA 'public'
SET ROLE clips_app
SET ROLE clips_owner
SET ROLE ringfence
SET SESSION AUTHORIZATION postgres
SET LOCAL ROLE postgres
RESET ROLE
RESET SESSION AUTHORIZATION
SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE
SELECT email FROM users LIMIT 1
--! setting / what changes the meaning of text
SET standard_conforming_strings = off
SELECT '\'; SELECT email FROM public.users; --'
SET backslash_quote = on
SET escape_string_warning = off
SET quote_all_identifiers = on
SET transform_null_equals = on
SET array_nulls = off
SET check_function_bodies = off
SET session_replication_role = replica
SET row_security = off
SELECT * FROM users LIMIT 1
--! setting / debugging and tracing
SET client_min_messages = debug5
SELECT email FROM users LIMIT 3
SET debug_print_plan = on
SET debug_print_rewritten = on
SET log_statement = 'all'
SET track_activities = on
SET auto_explain.log_min_duration = 0
LOAD 'auto_explain'
SET trace_sort = on
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET default_transaction_read_only = off
SET statement_timeout = 0
SET temp_file_limit = -1
SET work_mem = '10GB'
SET max_stack_depth = '100MB'
RESET ALL
SHOW ALL
DISCARD ALL
SELECT email FROM users LIMIT 1
--! setting / time zones against masked dates
SET TimeZone = 'Etc/GMT+12'
SELECT birth_date, birth_date::timestamptz FROM users LIMIT 3
SELECT paid_at, paid_at AT TIME ZONE 'Asia/Tokyo' FROM payments LIMIT 3
SET TimeZone = '<x>-167:59:59'
SELECT DISTINCT paid_at FROM payments
SELECT DISTINCT watched_at FROM watch_history
SET datestyle = 'German, DMY'
SELECT paid_at, watched_at FROM payments, watch_history LIMIT 3
SET intervalstyle = 'sql_standard'
SET extra_float_digits = 3
SELECT last_lat, last_lon FROM devices LIMIT 5
SET bytea_output = 'escape'
--! encoding / client encodings
SET client_encoding = 'SJIS'
SET NAMES 'GBK'
SET client_encoding = 'SQL_ASCII'
SET client_encoding TO 'LATIN1'
SELECT email FROM users LIMIT 1
SELECT convert(email::bytea, 'UTF8', 'LATIN1') FROM users LIMIT 1
--! copy / out
COPY users TO STDOUT
COPY public.users TO STDOUT
COPY (SELECT * FROM users LIMIT 5) TO STDOUT
COPY (SELECT * FROM users LIMIT 5) TO STDOUT WITH (FORMAT csv, HEADER)
COPY (SELECT id, email, birth_date FROM users LIMIT 5) TO STDOUT WITH (FORMAT binary)
COPY (SELECT * FROM devices LIMIT 5) TO STDOUT WITH (FORMAT binary)
COPY (SELECT * FROM payments LIMIT 5) TO STDOUT WITH (FORMAT binary)
COPY (SELECT * FROM public.messages) TO STDOUT
COPY (TABLE users) TO '/tmp/stolen'
COPY (TABLE users) TO PROGRAM 'cat'
COPY (WITH x AS (DELETE FROM users RETURNING *) SELECT * FROM x) TO STDOUT
COPY users FROM STDIN
COPY users FROM PROGRAM 'id'
COPY users FROM '/etc/passwd'
--! cursor / scrolling and holding
BEGIN
DECLARE c SCROLL CURSOR FOR SELECT * FROM users ORDER BY id
FETCH 5 FROM c
FETCH BACKWARD 2 FROM c
MOVE LAST IN c
FETCH ABSOLUTE 3 FROM c
UPDATE users SET email = 'x' WHERE CURRENT OF c
CLOSE c
COMMIT
--! cursor / with hold
DECLARE h CURSOR WITH HOLD FOR SELECT email, phone FROM users
FETCH ALL FROM h
CLOSE ALL
DECLARE p BINARY CURSOR WITH HOLD FOR SELECT birth_date, email FROM users
FETCH 5 FROM p
DECLARE q CURSOR FOR SELECT * FROM public.users
--! prepared / in SQL
PREPARE p AS SELECT email FROM users WHERE id = $1
EXECUTE p(4711)
EXECUTE p(1)
PREPARE q AS SELECT * FROM public.users
EXECUTE q
PREPARE r AS INSERT INTO users VALUES ($1)
PREPARE s(text) AS SELECT * FROM users WHERE email = $1
EXECUTE s('x')
DEALLOCATE ALL
EXECUTE p(1)
--! transaction / two-phase and savepoints
BEGIN
SAVEPOINT a
SELECT * FROM public.users
ROLLBACK TO a
SELECT email FROM users LIMIT 1
PREPARE TRANSACTION 'stuck'
COMMIT
COMMIT PREPARED 'stuck'
BEGIN READ WRITE
UPDATE users SET email = 'x' WHERE id = 1
ROLLBACK
BEGIN ISOLATION LEVEL SERIALIZABLE
SET TRANSACTION SNAPSHOT '00000003-0000001B-1'
SELECT count(*) FROM users
COMMIT AND CHAIN
ABORT
--! notify / channels
LISTEN a
NOTIFY a, 'x'
SELECT pg_notify('a', (SELECT email FROM users LIMIT 1))
UNLISTEN *
SELECT pg_listening_channels(), pg_notification_queue_usage()
--! lob / large objects
SELECT lo_create(0)
SELECT lo_from_bytea(0, 'x')
SELECT lo_import('/etc/passwd')
SELECT lo_export(1, '/tmp/x')
SELECT lo_get(loid) FROM pg_largeobject_metadata m(loid)
SELECT * FROM pg_largeobject LIMIT 1
SELECT loread(lo_open(1, 262144), 10)
--! explain / plans
EXPLAIN SELECT * FROM users
EXPLAIN ANALYZE SELECT * FROM users WHERE email LIKE 'C%'
EXPLAIN (VERBOSE, COSTS, SETTINGS) SELECT email FROM users
EXPLAIN (ANALYZE, FORMAT JSON) SELECT count(*) FROM users
EXPLAIN EXECUTE p(1)
EXPLAIN (ANALYZE) DECLARE c CURSOR FOR SELECT 1
SELECT * FROM pg_available_extensions WHERE name = 'auto_explain'
--! lock / holding others up
LOCK TABLE public.users
LOCK TABLE users IN ACCESS EXCLUSIVE MODE
SELECT * FROM users FOR UPDATE
SELECT * FROM users FOR SHARE SKIP LOCKED
SELECT pg_advisory_lock(g) FROM generate_series(1, 100000) g
SELECT pg_try_advisory_xact_lock(1)
SELECT pg_advisory_unlock_all()
--! file / reading the server
SELECT pg_read_binary_file('postgresql.conf')
SELECT * FROM pg_ls_logdir()
SELECT * FROM pg_ls_waldir()
SELECT * FROM pg_ls_tmpdir()
SELECT pg_stat_file('PG_VERSION')
SELECT pg_relation_filenode('public.users')
LOAD '/tmp/x.so'
--! extension / bringing code in
CREATE EXTENSION dblink
CREATE EXTENSION postgres_fdw
CREATE EXTENSION pageinspect
CREATE EXTENSION pgcrypto
CREATE EXTENSION plpython3u
CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw
CREATE FOREIGN TABLE f (a int) SERVER s
IMPORT FOREIGN SCHEMA public FROM SERVER s INTO public
SELECT get_raw_page('public.users', 0)
SELECT heap_page_items(get_raw_page('public.users', 0))
SELECT * FROM bt_page_items('users_email', 1)
SELECT * FROM pgstattuple('public.users')
SELECT bt_index_check('public.users_pkey')
--! replication / slots and decoding
SELECT pg_create_logical_replication_slot('s', 'test_decoding')
SELECT pg_create_physical_replication_slot('s')
SELECT * FROM pg_logical_slot_get_changes('s', NULL, NULL)
SELECT pg_logical_emit_message(true, 'a', 'b')
SELECT * FROM pg_replication_slots
SELECT * FROM pg_stat_replication
SELECT pg_walfile_name(pg_current_wal_lsn())
IDENTIFY_SYSTEM
--! write / through the view
INSERT INTO users (id, country, email) VALUES (1, 'US', 'x') RETURNING *
INSERT INTO users SELECT * FROM users ON CONFLICT (id) DO UPDATE SET email = 'x' RETURNING *
INSERT INTO public.users SELECT * FROM users
UPDATE users SET country = 'SG' RETURNING *
UPDATE users u SET country = 'SG' FROM public.messages m WHERE m.sender_id = u.id RETURNING m.body
DELETE FROM users RETURNING *
MERGE INTO users u USING profiles p ON p.user_id = u.id WHEN MATCHED THEN DELETE
TRUNCATE public.users
VACUUM public.users
ANALYZE VERBOSE public.users
CLUSTER
REINDEX DATABASE us
CHECKPOINT
REFRESH MATERIALIZED VIEW v
--! operator / patterns on masked columns
SELECT id FROM users WHERE email LIKE 'C%' LIMIT 5
SELECT id FROM users WHERE email ~ '^C' LIMIT 5
SELECT id FROM users WHERE full_name SIMILAR TO 'C%' LIMIT 5
SELECT id FROM users WHERE phone BETWEEN 'C' AND 'D' LIMIT 5
SELECT id FROM users WHERE email >= 'C' AND email < 'D' LIMIT 5
SELECT id, email FROM users WHERE email OPERATOR(pg_catalog.~~) '%a%' LIMIT 5
SELECT id FROM users WHERE birth_date < '1940-01-01' LIMIT 5
SELECT id FROM payments WHERE amount_cents > 1000 LIMIT 5
SELECT id FROM devices WHERE ip <<= '203.0.113.0/24' LIMIT 5
SELECT id FROM devices WHERE last_lat BETWEEN 12 AND 13 LIMIT 5
SELECT id FROM devices WHERE device_id::text LIKE 'c%' LIMIT 5
SELECT (email, phone) < ('D', 'D') FROM users LIMIT 5
SELECT email COLLATE "C" < 'D' FROM users LIMIT 5
SELECT email IS DISTINCT FROM 'x', email IS NULL, phone IS NOT NULL FROM users LIMIT 5
SELECT NULLIF(email, 'x'), COALESCE(email, 'x'), GREATEST(email, 'A'), LEAST(email, 'Z') FROM users LIMIT 5
--! dos / sleeping and heavy
SELECT pg_sleep(0.2)
SELECT count(*) FROM generate_series(1, 300000)
SELECT repeat('a', 1000000)
SELECT regexp_matches(repeat('a', 28), '(a+)+$')
SELECT email FROM users WHERE email ~ '^(([a-z])+.)+[A-Z]([a-z])+$' LIMIT 5
--! syntax / comments, quotes, dollars
SELECT/**/email/**/FROM/**/public.users
SELECT email FROM public /* nested /* comment */ */ . users LIMIT 1
SELECT $a$ $b$ $a$ || (SELECT email FROM public.users LIMIT 1)
SELECT E'\x27 || (SELECT email FROM public.users) || \x27'
SELECT "email" FROM "users" u WHERE '' = '' LIMIT 1
SELECT email FROM users WHERE id = 1 OR 1 = 1 LIMIT 3
SELECT '' ; ; ; SELECT email FROM public.users
SELECT N'x', B'1', X'1F', U&'\0041' FROM users LIMIT 1
SELECT email FROM users -- ; SELECT * FROM public.users
SELEC email FROM users
SELECT email FROM users WHERE id = (((((((((((((((((((((((((1)))))))))))))))))))))))))
ringfence_refused_1
SELECT 'ringfence_refused_1'; ringfence_refused_1
