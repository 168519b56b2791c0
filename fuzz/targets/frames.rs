//! First packets, frames, the fields of errors.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_gateway::frame::{self, Body};
use ringfence_gateway::startup::{self, Packet};
use ringfence_gateway::{refusal, rows};

fuzz_target!(|data: &[u8]| {
    if let Ok(Packet::Startup(startup)) = startup::parse(data) {
        let mut out = Vec::new();
        startup.negotiate(&mut out);
        assert!(!startup.user.is_empty() && !startup.database.is_empty());
    }
    if let Ok(Some(head)) = frame::head(data, frame::MAX_FRAME) {
        assert!(head.total >= frame::HEADER);
    }
    for (_, text) in frame::fields(data) {
        assert!(!text.contains(&0));
    }
    if let Some(hinted) = refusal::with_hint(data, "hint") {
        let head = frame::head(&hinted, frame::MAX_FRAME).unwrap().unwrap();
        assert_eq!(head.total, hinted.len());
    }
    for field in rows::description(data).unwrap_or_default() {
        let _ = field.reading().text(data);
    }
    for position in 0..4 {
        if let rows::Value::There(value) = rows::value(data, position) {
            assert!(value.len() <= data.len());
        }
    }
    let mut body = Body(data);
    let _ = body.string();
    let _ = body.u16();
    let _ = body.i32();
});
