//! The owner of a store's tables can plant code in many places: policies, defaults, indexes, casts
//! of its types. None of it runs with the rights of the steward, who reads the mask key and makes
//! roles.

use crate::harness::client::run;
use crate::harness::support::wire::Wire;
use crate::harness::support::{Demo, text};

const STORE: &str = "us-trusted";

/// The spy says in the server's log whose session runs it; that outlives a rollback.
const PLANT: &str = "grant create on schema public to clips_owner; set role clips_owner;
    create function public.spy(place text) returns boolean immutable language plpgsql as
      $$ begin raise log 'spy at % in a session of %', place, session_user; return true; end $$;
    create function public.spy_text(place text, value text) returns text immutable language plpgsql as
      $$ begin perform public.spy(place); return value; end $$;
    grant execute on function public.spy(text), public.spy_text(text, text) to public;
    create type public.kind as enum ('a', 'b');
    create function public.as_kind(text) returns kind immutable language plpgsql as
      $$ begin perform public.spy('cast'); return case $1 when 'a' then 'a'::kind else 'b' end; end $$;
    create function public.as_kinds(text) returns kind[] immutable language plpgsql as
      $$ begin perform public.spy('cast of an array'); return '{a}'; end $$;
    create cast (text as kind) with function public.as_kind(text);
    create cast (text as kind[]) with function public.as_kinds(text);
    grant execute on function public.as_kind(text), public.as_kinds(text) to public;
    grant usage on type kind to public;
    alter table users add column kind kind not null default ('a'::text)::kind;
    alter table users add column kinds kind[] not null default '{a}';
    alter table users add column spied text default public.spy_text('default', 'x');
    alter table users add constraint spied check (public.spy('check') and id > 0) not valid;
    create index spied on users (public.spy_text('index', email));
    create index spied_some on users (id) where public.spy('predicate');
    create statistics spied (ndistinct) on (public.spy_text('statistics', email)), phone from users;
    alter table payments enable row level security;
    create policy spied on payments as restrictive using (public.spy('policy'));
    create policy spied_all on payments using (public.spy('other policy'));
    reset role; analyze users";

/// Who ran the spy.
fn sessions(demo: &Demo) -> Vec<String> {
    let log =
        std::fs::read_to_string(demo.dir.join(STORE).join("log/postgresql.csv")).expect("the log is there");
    let said = log.split("\"spy at ").skip(1).filter_map(|rest| rest.split('"').next());
    let mut said: Vec<String> = said.map(str::to_owned).collect();
    said.sort_unstable();
    said.dedup();
    said
}

#[test]
fn the_owners_code_never_runs_with_the_stewards_rights() {
    let demo = Demo::start("owner");
    demo.superuser(STORE, "us", PLANT);
    demo.superuser(STORE, "us", "set role clips_owner; select 'b'::text::kind");
    assert!(sessions(&demo).contains(&"cast in a session of postgres".to_owned()), "the spy is seen");
    let catalogue = std::fs::read_to_string(demo.dir.join("catalogue.toml")).unwrap();
    let more = "[tables.users.columns]\nkind = \"public\"\nkinds = \"public\"\nspied = \"public\"\n";
    let catalogue = catalogue.replacen("[tables.users.columns]\n", more, 1);
    std::fs::write(demo.dir.join("catalogue-owner.toml"), catalogue).unwrap();
    let served = demo.serve_with("owner", "", |text| text.replace("catalogue.toml", "catalogue-owner.toml"));

    // Counts, for somebody abroad who sees masks.
    for who in ["beijing-engineer", "singapore-analyst", "us-engineer"] {
        let mut wire = Wire::connect(served.port, who, "us").unwrap();
        for sql in [
            "select max(card_last4), count(*) from payments",
            "select count(distinct email) from users where kind = 'a'",
            "select email, spied from users limit 3",
        ] {
            let answer = run(&mut wire, sql);
            assert!(!answer.is_gone, "{who}: {sql}");
        }
    }

    // Conditions with constants of the owner's types, from the request to the face.
    for condition in ["kind = 'a' and id < 20", "kinds = '{a}' and id < 20"] {
        let id = demo.grant_at("owner", "singapore-analyst", "users.email", condition, &[]);
        let mut wire = Wire::connect(served.port, "singapore-analyst", "us").unwrap();
        let shown = run(&mut wire, "select email from users");
        assert!(
            (1..20).contains(&shown.rows.len()),
            "{condition}: {} rows, {}",
            shown.rows.len(),
            shown.error()
        );
        let counted = run(&mut wire, "select max(email), count(*) from users");
        assert!(!counted.is_gone, "{condition}: {}", counted.error());
        demo.ringfence_with("owner", &["revoke", &id, "--as", "us-approver-1", "--reason", "a test"]);
    }
    assert!(!text(&demo.ringfence_with("owner", &["check", "--store", "us"])).is_empty());

    let said = sessions(&demo);
    assert!(said.iter().any(|one| one.contains(" in a session of rf_")), "faces run it: {said:?}");
    let stewards: Vec<_> = said.iter().filter(|one| one.ends_with(" of ringfence")).collect();
    assert!(stewards.is_empty(), "{stewards:?}; all: {said:?}");
}
