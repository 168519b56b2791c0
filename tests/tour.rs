//! The tour of the README, walked by the program itself with real psql.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use support::{Demo, text};

#[test]
fn every_step_of_the_tour_shows_what_the_readme_says() {
    let demo = Demo::start("tour");
    let dir = demo.dir.display().to_string();
    let walked = demo.ringfence(&["demo", "--check", "--dir", &dir]);
    assert!(walked.status.success(), "{}", text(&walked));
    assert!(text(&walked).contains("59 steps, 0 not as expected"), "{}", text(&walked));
}
