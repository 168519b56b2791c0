//! The tables, step by step. A step that has landed never changes.

use tokio_postgres::Client;

use crate::Error;

const STEPS: &[&str] = &[
    // 1: requests and their approvals. Times are milliseconds since 1970, as in the signed text.
    "CREATE TABLE requests (
        id text PRIMARY KEY,
        canonical text NOT NULL,
        requester text NOT NULL,
        store text NOT NULL,
        state text NOT NULL CHECK (state IN ('pending', 'granted', 'denied', 'revoked', 'expired')),
        created bigint NOT NULL,
        granted bigint,
        ended bigint,
        ended_by text,
        reason text,
        rows_used bigint NOT NULL DEFAULT 0
     );
     CREATE INDEX requests_state ON requests (state, requester, store);
     CREATE TABLE approvals (
        request text NOT NULL REFERENCES requests,
        approver text NOT NULL,
        signature text NOT NULL,
        at bigint NOT NULL,
        PRIMARY KEY (request, approver)
     )",
    // 2: the register of copies. The description is JSON, as whoever found the copy gave it.
    "CREATE TABLE copies (
        id text PRIMARY KEY,
        jurisdiction text NOT NULL,
        description text NOT NULL,
        state text NOT NULL CHECK (state IN ('registered', 'excepted', 'gone')),
        first_seen bigint NOT NULL,
        last_seen bigint NOT NULL,
        reason text,
        decided_by text,
        until bigint
     )",
    // 3: erasures and their approvals.
    "CREATE TABLE erasures (
        id text PRIMARY KEY,
        canonical text NOT NULL,
        requester text NOT NULL,
        state text NOT NULL CHECK (state IN ('pending', 'approved', 'done')),
        created bigint NOT NULL,
        certificate text
     );
     CREATE TABLE erasure_approvals (
        erasure text NOT NULL REFERENCES erasures,
        approver text NOT NULL,
        signature text NOT NULL,
        at bigint NOT NULL,
        PRIMARY KEY (erasure, approver)
     )",
    // 4: what the identity provider says of people.
    "CREATE TABLE people (
        name text PRIMARY KEY,
        subject text,
        signed_out bigint NOT NULL DEFAULT 0,
        active boolean NOT NULL DEFAULT true
     );
     CREATE INDEX people_subject ON people (subject)",
    // 5: what the provider calls somebody, by client: where subjects are pairwise, one person has several. `people.subject` stays for
    // gateways of the version before, which may still run. A sign-out is kept by subject, too: of somebody who was not met yet.
    "CREATE TABLE identities (
        audience text NOT NULL,
        subject text NOT NULL,
        name text NOT NULL,
        PRIMARY KEY (audience, subject),
        UNIQUE (audience, name)
     );
     CREATE INDEX identities_subject ON identities (subject);
     INSERT INTO identities (audience, subject, name) SELECT '', subject, min(name) FROM people WHERE subject IS NOT NULL GROUP BY subject;
     CREATE TABLE subject_sign_outs (subject text PRIMARY KEY, at bigint NOT NULL)",
    // 6: regulators' orders. Those that are signed are in force in the order in which they were.
    "CREATE TABLE orders (
        id text PRIMARY KEY,
        canonical text NOT NULL,
        created bigint NOT NULL,
        signature text,
        place bigint UNIQUE
     );
     CREATE SEQUENCE orders_place",
    // 7: keys that wait for approvers' signatures.
    "CREATE TABLE enrolments (
        id text PRIMARY KEY,
        person text NOT NULL,
        canonical text NOT NULL,
        created bigint NOT NULL
     );
     CREATE TABLE enrolment_signatures (
        id text NOT NULL REFERENCES enrolments ON DELETE CASCADE,
        approver text NOT NULL,
        signature text NOT NULL,
        PRIMARY KEY (id, approver)
     )",
];

/// Brings the schema `ringfence` of the database up to date, whoever else tries at the same time.
pub(crate) async fn run(client: &mut Client) -> Result<(), Error> {
    let tx = client.transaction().await?;
    tx.batch_execute(
        "SELECT pg_advisory_xact_lock(1919120995);
         CREATE SCHEMA IF NOT EXISTS ringfence;
         SET LOCAL search_path = ringfence;
         CREATE TABLE IF NOT EXISTS migrations (step int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())",
    )
    .await?;
    let done: i64 = tx.query_one("SELECT count(*) FROM migrations", &[]).await?.get(0);
    for (step, sql) in (1..).zip(STEPS).skip(usize::try_from(done).unwrap_or(0)) {
        tx.batch_execute(sql).await?;
        tx.execute("INSERT INTO migrations (step) VALUES ($1)", &[&step]).await?;
    }
    tx.commit().await?;
    client.batch_execute("SET search_path = ringfence").await?;
    Ok(())
}
