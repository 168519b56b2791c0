//! Files that a scan meets: whatever they are, a value that stands in them in clear is found, and a script of pg_dump's is given on as it
//! was read.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringfence_residency::copies::Holds;
use ringfence_residency::copies::inside;
use ringfence_residency::copies::probe::Probes;
use ringfence_residency::erase::dump::script::{self, Piece};

const VALUE: &[u8] = b"ada@example.org";
static PROBES: LazyLock<Probes> = LazyLock::new(|| Probes::new(vec!["ada@example.org".to_owned()]).unwrap());

fuzz_target!(|data: &[u8]| {
    let mut again = Vec::with_capacity(data.len());
    let read = script::read(data, &mut |piece| {
        match piece {
            Piece::Text(text) | Piece::Row(text) => again.extend_from_slice(text),
            Piece::Copy(copy) => again.extend_from_slice(&copy.line),
        }
        Ok(())
    });
    if read.is_ok() {
        assert_eq!(again, data);
    }
    // Another program's reader is not what is looked for here.
    if data.windows(5).any(|w| w == b"PGDMP") || data.windows(7).any(|w| w == b"toc.dat") {
        return;
    }
    let seen = inside::stream(data, "000000010000000000000001", &PROBES, &mut |_| ());
    let is_tar = data.get(257..262) == Some(b"ustar");
    if !is_tar && data.windows(VALUE.len()).any(|w| w == VALUE) {
        let holds = seen.map(|inside| inside.holds);
        assert!(
            matches!(holds, Some(Holds::Found { .. } | Holds::Unknown { .. })),
            "a value in clear is told as {holds:?}"
        );
    }
});
