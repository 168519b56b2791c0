//! The tour's move: the U.S. users' rows leave the legacy store for one at the trusted host, and come back.

use std::process::{Command, Stdio};

use super::{Expect, Tour};

impl Tour {
    pub(super) fn move_rows(&mut self) {
        let status = self.ringfence(&["migrate", "status"]).output();
        if status.is_ok_and(|o| super::text(&o).contains("us_home: moved")) {
            self.tell(
                "The U.S. users' rows have moved, on an earlier walk",
                true,
                "nothing to do",
                "us_home: moved",
            );
            return;
        }
        let act = |tour: &Self, what: &str| tour.ringfence(&["migrate", what, "--as", "us-engineer"]);
        let dump = self.dir.join("backups/singapore/nightly.dump");
        let mut pg_dump = Command::new("pg_dump");
        pg_dump.args(["-Fc", "-U", "postgres", "-d", "legacy", "-f"]).arg(&dump);
        pg_dump.arg("-h").arg(self.dir.join("sg-legacy")).stdin(Stdio::null());
        self.step("Somebody backs the legacy store up in Singapore", pg_dump, &[Expect::Shows("")]);
        let site = self.dir.join("backups/singapore").display().to_string();
        let backup =
            self.ringfence(&["backup", "run", "--as", "us-engineer", "--store", "legacy", "--to", &site]);
        let seen = self.step(
            "Another backup goes there, too, with a key of its own for the U.S. users' rows, which stays in the U.S.",
            backup,
            &[Expect::Shows("of us with a key of their own"), Expect::Shows("Registered as C-")],
        );
        let backup =
            seen.lines().find_map(|line| Some(line.split_once(": ")?.0.to_owned())).unwrap_or_default();
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
        let again = act(self, "cutover");
        self.step("They go over again, for good", again, &[Expect::Shows("The rows are at home at home")]);
        self.open_flow();
        self.erase_rows();
        let identity = self.dir.join("keys/backup.identity").display().to_string();
        let check = self.ringfence(&["backup", "check", &backup, "--identity", &identity]);
        self.step(
            "The encrypted backup is still in Singapore: without the U.S. users, wherever it was copied to, with everybody else",
            check,
            &[Expect::Shows("DESTROYED  us.sql.age"), Expect::Shows("3 files hold together")],
        );
        let show = self.ringfence(&["ledger", "show", "--grep", "us_home"]);
        self.step(
            "Each stage is on record, with who did it",
            show,
            &[Expect::Shows("us_home changed-over by us-engineer")],
        );
    }

    fn open_flow(&mut self) {
        let asked = self.ringfence(&["flow", "request", "--as", "us-engineer"]);
        let seen = self.step(
            "What everybody may see of U.S. users is to go on to the rest of the world: these columns",
            asked,
            &[Expect::Shows("id, country, created_at"), Expect::Hides("email")],
        );
        let Some(id) = seen.split_whitespace().find(|word| word.starts_with("F-")).map(str::to_owned) else {
            return;
        };
        for approver in ["us-approver-1", "us-approver-2"] {
            let key = self.dir.join("keys").join(approver).display().to_string();
            let approve = self.ringfence(&["flow", "approve", &id, "--as", approver, "--key", &key]);
            self.step(
                &format!("{approver} of the in-country team signs these columns"),
                approve,
                &[Expect::Shows("Signed.")],
            );
        }
        let open = self.ringfence(&["flow", "open", &id, "--as", "us-engineer"]);
        self.step(
            "The flow opens: what is there goes first, changes follow",
            open,
            &[Expect::Shows("It is open.")],
        );
        let check = self.ringfence(&["flow", "check", &id, "--as", "us-engineer"]);
        self.step(
            "Both ends are read: no column but those, and nobody's protected values",
            check,
            &[Expect::Shows("at the other end: none is there"), Expect::Hides("CUT")],
        );
    }

    fn erase_rows(&mut self) {
        let purpose = "the letter of 2022: remove the protected data from our own systems";
        let asked = self.ringfence(&["erase", "request", "--as", "us-engineer", "--purpose", purpose]);
        let seen = self.step(
            "What is left in the legacy store and its backups is to be erased: exactly this, and nobody has signed it yet",
            asked,
            &[Expect::Shows("nightly.dump (delete-whole)"), Expect::Shows("us.sql.age (destroy-key)"), Expect::Shows("approved by 0 of 2")],
        );
        let Some(id) = seen.split_whitespace().find(|word| word.starts_with("E-")).map(str::to_owned) else {
            return;
        };
        for approver in ["us-approver-1", "us-approver-2"] {
            let key = self.dir.join("keys").join(approver).display().to_string();
            let approve = self.ringfence(&["erase", "approve", &id, "--as", approver, "--key", &key]);
            self.step(
                &format!("{approver} of the in-country team signs that plan"),
                approve,
                &[Expect::Shows("Signed.")],
            );
        }
        let run = self.ringfence(&["erase", "run", &id, "--as", "us-engineer"]);
        self.step(
            "Rows, dead rows, statistics, WAL, dumps: erased, then looked for as bytes in the cluster's files",
            run,
            &[Expect::Shows(": 0 found"), Expect::Shows("certificate")],
        );
        let count = self.psql("us-engineer", "legacy", "select count(*) from users where country = 'US'");
        self.step("The legacy store has nobody of the U.S. any more", count, &[Expect::Shows("0")]);
        let show = self.ringfence(&["ledger", "show", "--grep", &id]);
        self.step(
            "The plan, both signatures and the certificate are in the ledger",
            show,
            &[Expect::Shows("erasure-requested"), Expect::Shows("erasure-certificate")],
        );
        let verify = self.ringfence(&["ledger", "verify"]);
        self.step(
            "Whoever checks the log sees that the certificate has its approvals",
            verify,
            &[Expect::Shows("The log verifies"), Expect::Shows("6 approvals are signed")],
        );
    }
}
