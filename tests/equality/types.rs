//! Every type, as text and in binary, in the simple and in the extended protocol, as a result and as a parameter.

use crate::Step::{Ready, Send};
use crate::{Case, bind, describe, execute, parse, query, sync};

const VALUES: &[(&str, &str)] = &[
    ("bool", "true"),
    ("int2", "-32768"),
    ("int4", "2147483647"),
    ("int8", "-9223372036854775808"),
    ("numeric", "12345678901234567890.123456789"),
    ("numeric(10,2)", "NaN"),
    ("float4", "1.5e-10"),
    ("float8", "-Infinity"),
    ("money", "1234.56"),
    ("text", "naïve ☃ text with ' quotes \\ and\ttabs"),
    ("varchar(10)", "abc"),
    ("char(5)", "ab"),
    ("\"char\"", "x"),
    ("name", "a_name"),
    ("bytea", "\\x00ff10"),
    ("date", "2022-06-17"),
    ("date", "infinity"),
    ("time", "12:34:56.789"),
    ("timetz", "12:34:56+02"),
    ("timestamp", "2022-06-17 12:34:56.789"),
    ("timestamptz", "2022-06-17 12:34:56.789+00"),
    ("interval", "1 year 2 mons 3 days 04:05:06"),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("json", "{\"a\": [1, null]}"),
    ("jsonb", "{\"b\": 1, \"a\": \"x\"}"),
    ("jsonpath", "$.a[*]"),
    ("xml", "<a>b</a>"),
    ("inet", "192.168.0.1/24"),
    ("cidr", "2001:db8::/32"),
    ("macaddr", "08:00:2b:01:02:03"),
    ("macaddr8", "08:00:2b:01:02:03:04:05"),
    ("bit(4)", "1010"),
    ("varbit", "10101"),
    ("point", "(1,2)"),
    ("line", "{1,2,3}"),
    ("lseg", "[(1,2),(3,4)]"),
    ("box", "(3,4),(1,2)"),
    ("path", "((1,2),(3,4))"),
    ("polygon", "((1,2),(3,4),(5,6))"),
    ("circle", "<(1,2),3>"),
    ("tsvector", "a:1 b:2A"),
    ("tsquery", "a & !b"),
    ("int4range", "[1,10)"),
    ("tstzrange", "[2022-01-01 00:00+00,infinity)"),
    ("nummultirange", "{[1,2),[3,4]}"),
    ("oid", "26"),
    ("regclass", "pg_class"),
    ("regtype", "integer"),
    ("pg_lsn", "16/B374D848"),
    ("eq.mood", "happy"),
    ("eq.positive", "5"),
    ("eq.pair", "(1,\"a b\")"),
];

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, (of, value)) in VALUES.iter().enumerate() {
        let value_text = literal(value);
        let sql = format!("select {value_text}::{of} as v, null::{of}, array[{value_text}::{of}, null]");
        let name = |way: &str| format!("type {number} {of} {way}");
        cases.push(Case::new(name("simple"), vec![Send(query(&sql)), Ready(1)]));
        for format in [0, 1] {
            let messages =
                [parse("", &sql, &[]), bind("", "", &[], format), describe(b'P', ""), execute("", 0), sync()];
            cases.push(Case::new(
                name(&format!("extended {format}")),
                vec![Send(messages.concat()), Ready(1)],
            ));
        }
        let sql = format!("select $1::{of} as v");
        let prepare = [parse("p", &sql, &[]), describe(b'S', "p"), sync()].concat();
        let run = [bind("", "p", &[Some(value)], 0), describe(b'P', ""), execute("", 0)].concat();
        let null = [bind("", "p", &[None], 1), execute("", 0), sync()].concat();
        cases.push(Case::new(
            name("parameter"),
            vec![Send(prepare), Ready(1), Send([run, null].concat()), Ready(1)],
        ));
    }
    cases
}
