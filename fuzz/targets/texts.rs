//! Registry, catalogue, canonical requests, signatures.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_grants::{Approval, Request};
use ringfence_policy::ownership::{coverage, covered_companies};
use ringfence_policy::{Catalogue, Registry};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(registry) = Registry::parse(text) {
        let companies = covered_companies(&registry);
        for person in &registry.people {
            let _ = coverage(&registry, &companies, person);
        }
    }
    let _ = Catalogue::parse(text);
    if let Ok(reached) = serde_json::from_str::<ringfence_meter::Reached<'_>>(text) {
        let again = serde_json::to_string(&reached).unwrap();
        assert_eq!(serde_json::from_str::<ringfence_meter::Reached<'_>>(&again).unwrap(), reached);
    }
    if let Ok(request) = Request::parse(text) {
        assert_eq!(request.canonical(), text);
    }
    let approval = Approval { approver: "ann".into(), signature: text.to_owned() };
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7Nx4Qm2C4mXv7kMQPrIdLWvcoAJmRVxhQ2NW4fVb0M ann";
    assert!(approval.verify_text("x", key).is_err());
    assert!(approval.verify_text("x", text).is_err());
});
