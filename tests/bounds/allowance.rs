//! Nobody fills the ledger's disk: who has put a minute's bytes on record is read more slowly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringfence_verifier::record::Kind;

use crate::harness::client::{end, run};
use crate::harness::ledger;
use crate::harness::support::Demo;
use crate::harness::support::wire::Wire;

#[test]
fn who_records_much_is_read_more_slowly() {
    let demo = Demo::start("allowance");
    let served = demo.serve_with("allowance", "", |text| {
        text.replace("[gateway]\n", "[gateway]\nrecorded_mib_per_minute = 1\n")
    });
    let log = demo.dir.join("ledger-allowance");
    let from = ledger::size(&log);
    let texts = AtomicU64::new(0);
    let port = served.port;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut wire = Wire::connect(port, "us-engineer", "us").unwrap();
            loop {
                let number = texts.fetch_add(1, Ordering::Relaxed);
                let answer = run(&mut wire, &format!("select length('{number}{}')", "x".repeat(100 * 1024)));
                if answer.is_gone {
                    return;
                }
                assert!(answer.errors.is_empty(), "{}", answer.error());
            }
        });
        assert!(ledger::wait_for(&log, from, Kind::Intent, 9).len() >= 9, "a minute's bytes are free");
        // Without a bound it would be some hundred texts by then.
        std::thread::sleep(Duration::from_secs(4));
        let recorded = ledger::records(&log, from, Kind::Intent).len();
        assert!(recorded < 25, "{recorded} of {} texts", texts.load(Ordering::Relaxed));
        let mut other = Wire::connect(port, "singapore-analyst", "us").unwrap();
        assert_eq!(run(&mut other, "select 1").rows.len(), 1, "others are read as ever");
        end(other);
        // It ends the one that waits, too.
        drop(served);
    });
}
