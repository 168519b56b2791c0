"""psycopg 3 through the gateway, as somebody with full access and as somebody at a face."""
import sys

import psycopg

port = sys.argv[1]


def connect(user, **more):
    return psycopg.connect(f"host=127.0.0.1 port={port} user={user} password=demo dbname=us", **more)


with connect("us-engineer") as conn:
    assert conn.execute("select pg_backend_pid()").fetchone()[0] == conn.info.backend_pid
    # Prepared statements, binary results, server-side cursors, pipelines, errors in the middle, COPY both ways.
    for n in range(8):
        row = conn.execute("select id, email from users where id = %s", (4711,), prepare=True).fetchone()
        assert row[0] == 4711 and "@" in row[1], row
    with conn.cursor(binary=True) as cur:
        cur.execute("select id, birth_date, created_at from users where id = %s", (4711,))
        assert cur.fetchone()[0] == 4711
    with conn.cursor(name="server_side") as cur:
        cur.itersize = 50
        cur.execute("select user_id from profiles order by 1")
        assert sum(1 for _ in cur) > 1000
    with conn.pipeline() as pipeline:
        cursors = [conn.execute("select %s::int", (n,)) for n in range(20)]
        pipeline.sync()
        assert [c.fetchone()[0] for c in cursors] == list(range(20))
    conn.commit()
    try:
        with conn.pipeline():
            conn.execute("select 1")
            conn.execute("select 1 / 0")
            conn.execute("select 2")
        raise AssertionError("an error in a pipeline was lost")
    except psycopg.errors.DivisionByZero:
        conn.rollback()
    conn.execute("create temp table t (a int, b text)")
    with conn.cursor().copy("copy t from stdin") as copy:
        for n in range(1000):
            copy.write_row((n, f"row {n}"))
    with conn.cursor().copy("copy t to stdout (format binary)") as copy:
        assert sum(len(chunk) for chunk in copy) > 10000
    assert conn.execute("select count(*) from t").fetchone()[0] == 1000
    conn.commit()
    conn.execute("listen a")
    conn.commit()
    conn.execute("notify a, 'hello'")
    conn.commit()
    assert next(conn.notifies(timeout=5, stop_after=1)).payload == "hello"
    big = conn.execute("select repeat('x', 3000000)").fetchone()[0]
    assert len(big) == 3000000
    with conn.transaction():
        try:
            with conn.transaction():
                conn.execute("select * from nowhere")
        except psycopg.errors.UndefinedTable:
            pass
        assert conn.execute("select 1").fetchone() == (1,)

# The session of the next client of the same role has nothing of the last one.
with connect("us-engineer") as conn:
    assert conn.execute("select to_regclass('pg_temp.t')").fetchone() == (None,)
    assert conn.execute("select count(*) from pg_prepared_statements").fetchone() == (0,)
    assert conn.execute("select count(*) > 0 from messages").fetchone() == (True,)

notices = []
with connect("singapore-analyst", autocommit=True) as conn:
    conn.add_notice_handler(lambda d: notices.append((d.message_primary, d.message_hint)))
    for n in range(8):
        row = conn.execute("select id, email from users where id = %s", (4711,), prepare=True).fetchone()
        assert row[1].endswith("@masked.invalid"), row
    assert len(notices) == 1 and "masked for you" in notices[0][0], notices
    assert "ringfence request" in notices[0][1]
    try:
        conn.execute("delete from users where id = %s", (4711,))
        raise AssertionError("a write through a face")
    except psycopg.errors.InsufficientPrivilege as e:
        assert "DELETE is not allowed" in str(e)
    # A refusal in the middle of a pipeline: what came before counts, what comes after is skipped.
    with conn.pipeline() as pipeline:
        first = conn.execute("select 1")
        bad = conn.execute("update users set email = 'x'")
        try:
            pipeline.sync()
        except psycopg.errors.InsufficientPrivilege:
            pass
        assert first.fetchone() == (1,)
    assert conn.execute("select 2").fetchone() == (2,)
    with conn.transaction():
        with conn.cursor(name="c") as cur:
            cur.execute("select email from users order by id")
            assert all(e.endswith("@masked.invalid") for (e,) in cur.fetchmany(100))
    conn.execute("begin")
    try:
        conn.execute("lock table users")
    except psycopg.errors.InsufficientPrivilege:
        pass
    try:
        conn.execute("select 1")
        raise AssertionError("a refusal must abort the transaction, as any error does")
    except psycopg.errors.InFailedSqlTransaction:
        conn.execute("rollback")

try:
    connect("singapore-analyst", options="-c search_path=public")
    raise AssertionError("start options through a face")
except psycopg.OperationalError as e:
    assert "options" in str(e), e
print("psycopg: all as expected")
