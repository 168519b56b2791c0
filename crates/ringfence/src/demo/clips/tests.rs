//! What the demo, its stores and its story rely on.

use std::collections::{HashMap, HashSet};

use super::phrases::{ADJECTIVES, MESSAGES, NOUNS, TITLES};
use super::words::{COUNTRIES, MAIL_HOSTS};
use super::*;

const SOME: u32 = 13_000;

fn written(clips: Clips, table: Table, country: Option<&str>) -> String {
    let mut all = Vec::new();
    let done: Result<(), ()> = clips.write(table, country, |chunk, rows| {
        let lines = chunk.split_inclusive(|&byte| byte == b'\n').count();
        assert_eq!(rows, lines as u64, "the count that goes with a chunk of {}", table.name());
        all.extend(chunk);
        Ok(())
    });
    assert_eq!(done, Ok(()));
    String::from_utf8(all).expect("rows are UTF-8")
}

/// The values of column `name` of `table`.
fn column<'a>(table: Table, text: &'a str, name: &str) -> Vec<&'a str> {
    let at = table.columns().split(", ").position(|column| column == name).expect("a column");
    text.lines().map(|line| line.split('\t').nth(at).expect("a value")).collect()
}

fn subject(table: Table) -> &'static str {
    match table {
        Table::Users => "id",
        Table::Profiles | Table::Devices | Table::WatchHistory | Table::Payments => "user_id",
        Table::Videos => "author_id",
        Table::Follows => "follower_id",
        Table::Messages => "sender_id",
    }
}

#[test]
fn two_runs_give_the_same_bytes() {
    for table in Table::ALL {
        assert!(written(Clips::new(500), table, None) == written(Clips::new(500), table, None));
    }
}

#[test]
fn the_bytes_are_those_of_the_last_release() {
    // FNV-1a of the first 500 users' rows. If a change of words or chances is meant, put the new numbers in, and
    // look whether docs and screenshots quote the data.
    let known = [
        0xe07b_740e_4945_fe4a,
        0xd14e_526e_8f8d_0188,
        0x14b4_ebf1_8ffc_2a5c,
        0x00b9_259c_10a4_ae73,
        0x9c84_eb9d_3b3c_39af,
        0x0537_ee83_ee18_95e9,
        0x9fcf_7893_8912_cb8b,
        0xc377_99ee_51e9_3338,
    ];
    for (table, hash) in Table::ALL.into_iter().zip(known) {
        let now =
            written(Clips::new(500), table, None).bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        assert_eq!(now, hash, "{} now has {now:#x}", table.name());
    }
}

#[test]
fn a_us_store_holds_the_same_bytes_as_the_us_part_of_a_store_with_everybody() {
    let clips = Clips::new(3_000);
    let users = written(clips, Table::Users, None);
    let us: HashSet<&str> = users
        .lines()
        .filter(|line| line.split('\t').nth(1) == Some("US"))
        .map(|line| line.split('\t').next().expect("an id"))
        .collect();
    assert!(us.len() > 1_000, "only {} of 3,000 users in the US", us.len());
    for table in Table::ALL {
        let all = written(clips, table, None);
        let subjects = column(table, &all, subject(table));
        let of_us: String = all
            .split_inclusive('\n')
            .zip(subjects)
            .filter(|(_, subject)| us.contains(subject))
            .map(|(line, _)| line)
            .collect();
        assert!(written(clips, table, Some("US")) == of_us, "{} differs", table.name());
    }
}

#[test]
fn a_users_own_rows_do_not_depend_on_how_many_users_there_are() {
    for table in [Table::Users, Table::Profiles, Table::Devices, Table::Videos, Table::Payments] {
        let few = written(Clips::new(700), table, None);
        assert!(written(Clips::new(900), table, None).starts_with(&few), "{}", table.name());
    }
}

#[test]
fn the_countries_share_all_users_and_nobody_else_has_any() {
    let clips = Clips::new(2_000);
    for table in Table::ALL {
        let parts: u64 = COUNTRIES.iter().map(|c| clips.rows_estimate(table, Some(c.code))).sum();
        assert_eq!(parts, clips.rows_estimate(table, None), "{}", table.name());
    }
    assert_eq!(clips.rows_estimate(Table::Users, Some("ZZ")), 0);
    assert_eq!(written(clips, Table::Users, Some("ZZ")), "");
}

#[test]
fn user_4711_is_a_us_user_with_something_in_every_table() {
    let clips = Clips::new(5_000);
    for table in Table::ALL {
        let text = written(clips, table, Some("US"));
        let rows = column(table, &text, subject(table)).iter().filter(|&&id| id == "4711").count();
        let least = match table {
            Table::Users | Table::Profiles => 1,
            _ => 2,
        };
        assert!(rows >= least, "user 4711 has {rows} rows of {}", table.name());
    }
}

#[test]
fn every_line_has_a_value_for_each_column_and_needs_no_escape() {
    for table in Table::ALL {
        let columns = table.columns().split(", ").count();
        for line in written(Clips::new(SOME), table, None).lines() {
            assert_eq!(line.split('\t').count(), columns, "{}: {line}", table.name());
            assert!(!line.contains(['\\', '{', '}', '\r'].as_slice()), "{}: {line}", table.name());
        }
    }
}

#[test]
fn the_schema_has_each_table_with_its_columns_in_order() {
    for table in Table::ALL {
        let head = format!("CREATE TABLE public.{} (", table.name());
        let (_, body) = SCHEMA_SQL.split_once(&head).expect("the table is in the schema");
        let (body, _) = body.split_once(");").expect("the table's end");
        let columns: Vec<&str> = body
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
            .collect();
        assert_eq!(columns.join(", "), table.columns(), "{}", table.name());
    }
}

#[test]
fn the_estimate_is_the_number_of_rows() {
    for users in [0, 1, 2, 3, 1_000] {
        for table in Table::ALL {
            let rows = written(Clips::new(users), table, None).lines().count();
            let estimate = Clips::new(users).rows_estimate(table, None);
            assert_eq!(rows as u64, estimate, "{} of {users} users", table.name());
        }
    }
}

#[test]
fn a_hundred_thousand_users_make_the_demo_big_enough() {
    let clips = Clips::new(100_000);
    for (table, about) in [
        (Table::Users, 100_000),
        (Table::Profiles, 100_000),
        (Table::Devices, 150_000),
        (Table::Videos, 120_000),
        (Table::Follows, 250_000),
        (Table::Messages, 250_000),
        (Table::WatchHistory, 400_000),
        (Table::Payments, 60_000),
    ] {
        let rows = clips.rows_estimate(table, None);
        assert!(rows.abs_diff(about) * 20 < about, "{rows} rows of {}, not {about}", table.name());
    }
    let us = clips.rows_estimate(Table::Users, Some("US"));
    assert!((44_000..46_000).contains(&us), "{us} US users");
}

#[test]
fn keys_are_unique() {
    for (table, key) in [
        (Table::Users, "id"),
        (Table::Users, "email"),
        (Table::Profiles, "user_id"),
        (Table::Profiles, "handle"),
        (Table::Devices, "id"),
        (Table::Devices, "device_id"),
        (Table::Videos, "id"),
        (Table::Messages, "id"),
        (Table::Payments, "id"),
    ] {
        let text = written(Clips::new(SOME), table, None);
        let values = column(table, &text, key);
        let distinct: HashSet<&&str> = values.iter().collect();
        assert_eq!(distinct.len(), values.len(), "{}.{key}", table.name());
    }
    for users in [2, 5, SOME] {
        let follows = written(Clips::new(users), Table::Follows, None);
        let distinct: HashSet<&str> = follows.lines().collect();
        assert_eq!(distinct.len(), follows.lines().count(), "follows of {users} users");
        for pair in distinct {
            let (who, whom) = pair.split_once('\t').expect("two columns");
            assert_ne!(who, whom);
            assert!((1..=users).contains(&whom.parse().expect("a user")), "{pair}");
        }
    }
}

#[test]
fn watched_videos_exist_and_were_published_before() {
    let clips = Clips::new(SOME);
    let videos = written(clips, Table::Videos, None);
    let published: HashMap<&str, &str> = column(Table::Videos, &videos, "id")
        .into_iter()
        .zip(column(Table::Videos, &videos, "published_at"))
        .collect();
    let history = written(clips, Table::WatchHistory, None);
    for line in history.lines() {
        let values: Vec<&str> = line.split('\t').collect();
        let since = published.get(values[1]).unwrap_or_else(|| panic!("no such video: {line}"));
        // Timestamps of one form and one zone compare as text.
        assert!(*since <= values[2], "published at {since}: {line}");
    }
}

#[test]
fn no_mail_leaves_the_reserved_domains() {
    // RFC 2606 sections 2 and 3, RFC 6761 section 6.5.
    let reserved = |host: &str| {
        ["example", "example.com", "example.net", "example.org"]
            .iter()
            .any(|name| host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    };
    let users = written(Clips::new(SOME), Table::Users, None);
    for email in column(Table::Users, &users, "email") {
        let (local, host) = email.split_once('@').expect("an address");
        assert!(reserved(host), "{email}");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
        assert!(local.starts_with(|c: char| c.is_ascii_lowercase()) && local.chars().all(plain), "{email}");
    }
    assert!(MAIL_HOSTS.iter().all(|host| reserved(host)));
}

#[test]
fn us_telephone_numbers_are_fictional() {
    let fictional = |phone: &str| {
        let shape: String = phone.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
        shape == "+# ### ### ####" && phone.starts_with("+1 ") && &phone[7..13] == "555 01"
    };
    let users = written(Clips::new(SOME), Table::Users, Some("US"));
    for phone in column(Table::Users, &users, "phone") {
        assert!(fictional(phone), "{phone}");
    }
    let messages = written(Clips::new(SOME), Table::Messages, Some("US"));
    let told: Vec<&str> = messages.match_indices("+1 ").map(|(at, _)| &messages[at..at + 15]).collect();
    assert!(!told.is_empty(), "nobody gave a number away");
    for phone in told {
        assert!(fictional(phone), "{phone}");
    }
}

#[test]
fn addresses_are_for_documentation_or_benchmarks() {
    let devices = written(Clips::new(SOME), Table::Devices, None);
    for ip in column(Table::Devices, &devices, "ip") {
        let net = ["192.0.2.", "198.51.100.", "203.0.113.", "198.18.", "198.19."];
        assert!(net.iter().any(|net| ip.starts_with(net)), "{ip}");
        assert!(ip.parse::<std::net::Ipv4Addr>().is_ok(), "{ip}");
    }
}

#[test]
fn dates_are_those_of_the_platform_and_nobody_joins_as_a_child() {
    let users = written(Clips::new(SOME), Table::Users, None);
    let births = column(Table::Users, &users, "birth_date");
    let joins = column(Table::Users, &users, "created_at");
    let year = |date: &str| date[..4].parse::<u32>().expect("a year");
    for (birth, joined) in births.iter().zip(&joins) {
        assert!(("1950-01-01".."2013").contains(birth), "born {birth}");
        assert!(("2017".."2026-07").contains(joined), "joined {joined}");
        let birthday = format!("{}{}", year(birth) + 13, &birth[4..]);
        assert!(*birthday.as_str() <= joined[..10], "born {birth}, joined {joined}");
    }
    let young = births.iter().filter(|birth| year(birth) >= 1994).count();
    let recent = joins.iter().filter(|joined| year(joined) >= 2022).count();
    assert!(young * 2 > births.len(), "{young} young of {}", births.len());
    assert!(recent * 2 > joins.len(), "{recent} recent of {}", joins.len());
}

#[test]
fn some_messages_cross_the_border_and_most_do_not() {
    let clips = Clips::new(SOME);
    let us: HashSet<String> = clips.users_of(Some("US")).map(|user| user.to_string()).collect();
    let messages = written(clips, Table::Messages, Some("US"));
    let recipients = column(Table::Messages, &messages, "recipient_id");
    let home = recipients.iter().filter(|&&recipient| us.contains(recipient)).count();
    let percent = 100 * home / recipients.len();
    assert!((80..98).contains(&percent), "{percent} % of messages from the US stay there");
}

#[test]
fn nobody_repeats_a_message_or_a_title_soon() {
    let prime = |n: usize| n > 1 && (2..n).all(|divisor| !n.is_multiple_of(divisor));
    assert!(MESSAGES.len() >= 60 && prime(MESSAGES.len()), "{} messages", MESSAGES.len());
    assert!(TITLES.len() >= 40 && prime(TITLES.len()), "{} titles", TITLES.len());
    for list in [MESSAGES, TITLES, ADJECTIVES, NOUNS] {
        assert_eq!(list.iter().collect::<HashSet<_>>().len(), list.len(), "a phrase stands twice");
    }
}

#[test]
fn an_error_of_the_sink_stops_the_writing() {
    let mut calls = 0;
    let done = Clips::new(SOME).write(Table::Users, None, |_, _| {
        calls += 1;
        if calls == 2 { Err("disk full") } else { Ok(()) }
    });
    assert_eq!((done, calls), (Err("disk full"), 2));
}

#[test]
fn the_shares_of_the_countries_and_their_names_are_whole() {
    assert_eq!(COUNTRIES.iter().map(|country| country.permille).sum::<u32>(), 1000);
    for country in &COUNTRIES {
        let percent: u32 = country.names.iter().map(|names| names.percent).sum();
        assert_eq!(percent, 100, "{}", country.code);
        for name in country.names.iter().flat_map(|names| names.given.iter().chain(names.family)) {
            let mut out = CopyText::default();
            out.folded(name);
            let letters = name.chars().filter(|c| c.is_alphabetic()).count();
            assert!(out.len() >= letters, "{name} loses letters in an address");
        }
    }
}
