//! The tour's move: the U.S. users' rows leave the legacy store for one at the trusted host, and come back.

use std::process::{Command, Stdio};

use super::{Expect, Tour};

impl Tour {
    pub(super) fn move_rows(&mut self) {
        let act = |tour: &Self, what: &str| tour.ringfence(&["migrate", what, "--as", "us-engineer"]);
        let dump = self.dir.join("backups/singapore/nightly.dump");
        let mut pg_dump = Command::new("pg_dump");
        pg_dump.args(["-Fc", "-U", "postgres", "-d", "legacy", "-f"]).arg(&dump);
        pg_dump.arg("-h").arg(self.dir.join("sg-legacy")).stdin(Stdio::null());
        self.step("Somebody backs the legacy store up in Singapore", pg_dump, &[Expect::Shows("")]);
        let scan = self.ringfence(&["copies", "scan", "--as", "us-engineer"]);
        self.step(
            "Where else does U.S. data lie? Dumps, replicas, exports, found by what is in them",
            scan,
            &[Expect::Fails("backups/singapore/nightly.dump: 500 of 500 people found")],
        );
        let plan = self.ringfence(&["migrate", "plan"]);
        self.step(
            "Which rows of the legacy store belong to the U.S., and what stands in the way of moving them?",
            plan,
            &[Expect::Shows("rows of us go from legacy to home"), Expect::Hides("BLOCKER")],
        );
        let start = act(self, "start");
        self.step(
            "They are copied to an empty store at the trusted host, and their changes follow",
            start,
            &[Expect::Shows("home follows legacy")],
        );
        let status = self.ringfence(&["migrate", "status"]);
        self.step("How far is it?", status, &[Expect::Shows("us_home: following"), Expect::Shows("behind")]);
        let verify = self.ringfence(&["migrate", "verify"]);
        self.step(
            "Both sides are compared, row by row, while they are in use",
            verify,
            &[Expect::Shows("EQUAL    users"), Expect::Hides("DIFFERS")],
        );
        let cutover = act(self, "cutover");
        self.step(
            "Clients of the route wait for a moment, and go on at the trusted host",
            cutover,
            &[Expect::Shows("The rows are at home at home")],
        );
        let read =
            self.psql("feed-service", "clips", "select country, count(*) > 0 from users group by country");
        self.step(
            "The same name leads a workload there: U.S. users, and nobody else",
            read,
            &[Expect::Shows("US|t"), Expect::Hides("DE")],
        );
        let write = self.psql("us-engineer", "legacy", "update users set phone = '0' where id = 4711");
        self.step(
            "In the legacy store nobody can change these rows any more",
            write,
            &[Expect::Fails("at home in the store home")],
        );
        let back = act(self, "back");
        self.step(
            "Until they are erased there is a way back, with all that was written since",
            back,
            &[Expect::Shows("at home at legacy again")],
        );
        let abort = act(self, "abort");
        self.step(
            "Given up, nothing of the move is left on either side",
            abort,
            &[Expect::Shows("legacy is as before")],
        );
        let show = self.ringfence(&["ledger", "show", "--grep", "us_home"]);
        self.step(
            "Each stage is on record, with who did it",
            show,
            &[Expect::Shows("us_home changed-over by us-engineer"), Expect::Shows("us_home given-up")],
        );
    }
}
