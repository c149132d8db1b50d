//! The shape of the configuration file. The descriptions here are those of the schema, of the example and of docs/reference/configuration.md.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use sipguard_common::abi::{CONNECTIONS, INVITES, REGISTERS};

use super::LimitedAtOnce;
use super::check_values::{Checks, Switches};
use super::service_values::{
    Executable, Free, HomerAt, KeptIn, Password, Pattern, Quarantine, Size, Unit, Whole,
};
use super::text_values::{BanSpan, Denials, Interface, Methods, Rate, Reason, Span, Transports, TrunkName};
use super::value::{Most, Number, Text};
use crate::address::Source;
use crate::ban_rule::{self, BanRequest, MOST_STREAMS};
use crate::claim::{SCANNERS, UserAgent};
use crate::duration::shown;
use crate::rate::{self, AtOnce, RateLimit};
use crate::service::{
    CoreSettings, DEFAULT_CRASHES, DEFAULT_EVIDENCE, DEFAULT_HISTORY, DEFAULT_HOMER_ID, DEFAULT_LISTEN,
    DEFAULT_LOG_BYTES, DEFAULT_PATTERNS, EvidenceLimits, Keep, Listen,
};
use crate::settings::{
    DEFAULT_FLOWS, DEFAULT_GRACE, DEFAULT_PORT, DEFAULT_TLS_PORT, Malformed, Mode, Profile, XdpChoice,
};
use crate::store::DEFAULT_LIMITS;
use crate::trunk;

/// A guarded port.
pub(super) type Port = Number<1, 65_535>;
/// Malformed streams that make a ban.
pub(super) type Streams = Number<1, MOST_STREAMS>;

/// The configuration of sipguard: `/etc/sipguard/sipguard.toml` and `conf.d/*.toml` beside it, in the order of their names. A setting is
/// said in one of them. What is not said stays as a command has set it, or at its default.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
#[schemars(title = "sipguard.toml")]
pub(super) struct Tables {
    /// The guard as a whole.
    pub guard: GuardTable,
    /// Single limits of the checks, instead of those of the profile, and what becomes of the faults of a check: refuse, monitor (they pass and
    /// are counted) or off (they are not looked for). As `sipguard checks set` does; docs/reference/checks.md says what they are about.
    pub checks: Checks,
    /// How much each source may send that is no trunk's: so many a second on average, and so many at once. `none` is no limit. With monitor
    /// behind it ("20/s burst 40 monitor", "500 monitor") what is over a limit passes and is counted as would-drop. As `sipguard limit set` does.
    pub limits: RatesTable,
    /// When the guard bans by itself who keeps sending malformed TCP streams: an address and port, or an address. Times are 30d at the
    /// most. As `sipguard bans set` does.
    pub bans: BansTable,
    /// Who is blocked by what a request says of itself. As `sipguard block --user-agent` does; addresses are blocked by commands. While
    /// anything stands here, each request costs about a microsecond more.
    pub block: Block,
    /// What a class of senders may not send: a transport (tcp, tls, udp), a method (register: over TCP and UDP) or a method over a
    /// transport (register/tcp). As `sipguard deny` does.
    pub deny: Deny,
    /// Carriers by name: whose addresses they are, and what they may send. Nothing automatic blocks them. As `sipguard trunk add` does.
    pub trunks: BTreeMap<Text<TrunkName>, TrunkTable>,
    /// The service beside the guard, `sipguard serve`. It reads this when it starts, so a change takes a restart of it.
    pub serve: Serve,
    /// Which process is the PBX, for `sipguard serve`: at each crash of it, it says which device was the likely cause. Nothing is watched
    /// unless `unit`, `pid-file`, `exe` or `cores` names it; of the first three, the first that is there counts.
    pub crash: CrashTable,
    /// Where core dumps appear, for `sipguard serve`: it keeps them from filling the disk. Nothing is done unless `directory` names it.
    pub cores: Cores,
}

/// The guard as a whole.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct GuardTable {
    /// What `sipguard attach` attaches to when it names nothing.
    #[schemars(extend("default" = [], "examples" = [["eth0"]]))]
    pub interfaces: Option<Vec<Text<Interface>>>,
    /// How the program runs. A change takes a new attach.
    #[schemars(extend("default" = "auto"))]
    pub xdp_mode: Option<XdpChoice>,
    /// What happens to what should be dropped.
    #[schemars(extend("default" = "enforce"))]
    pub mode: Option<Mode>,
    /// Guarded ports of the PBX, TCP and UDP. Plain SIP only, since TLS, WebSocket or HTTP there would be reset.
    #[schemars(extend("default" = [DEFAULT_PORT]), length(min = 1))]
    pub ports: Option<Vec<Port>>,
    /// Ports of SIP over TLS, whose records are checked and not decrypted; [] for none.
    #[schemars(extend("default" = [DEFAULT_TLS_PORT]))]
    pub tls_ports: Option<Vec<Port>>,
    /// Whether ports are guarded as well that SSH has here, or that another protocol is known by: 22, 25, 53, 80, 110, 143, 443, 587, 993, 995,
    /// 3306, 3389, 5038, 5432, 8080, 8088, 8089. Its connections would be reset.
    #[schemars(extend("default" = false))]
    pub force_ports: Option<bool>,
    /// Which checks are made and how large the limits are.
    #[schemars(extend("default" = "default"))]
    pub profile: Option<Profile>,
    /// Whether messages whose lines end with LF alone are refused.
    #[schemars(extend("default" = false))]
    pub refuse_lf: Option<bool>,
    /// What happens to a malformed stream.
    #[schemars(extend("default" = "reset"))]
    pub on_malformed: Option<Malformed>,
    /// How many connections can be followed at once, about 370 bytes of kernel memory each. A change takes a new attach.
    #[schemars(extend("default" = DEFAULT_FLOWS))]
    pub flows: Option<Number<1024, 4_000_000>>,
    /// How long after an attach connections older than the guard may be in the middle of a message.
    #[schemars(extend("default" = format!("{}s", DEFAULT_GRACE.as_secs())))]
    pub grace: Option<Text<Span>>,
}

/// Limits by kind.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct RatesTable {
    /// Packets to guarded ports.
    #[schemars(extend("examples" = ["none"]))]
    pub packets: Option<Text<Rate>>,
    /// SIP messages.
    #[schemars(extend("examples" = ["none"]))]
    pub messages: Option<Text<Rate>>,
    /// REGISTER requests.
    #[schemars(extend("default" = usual(REGISTERS)))]
    pub register: Option<Text<Rate>>,
    /// INVITE requests.
    #[schemars(extend("default" = usual(INVITES)))]
    pub invite: Option<Text<Rate>>,
    /// New TCP connections.
    #[schemars(extend("default" = usual(CONNECTIONS)))]
    pub connections: Option<Text<Rate>>,
    /// TCP connections open at once: a number, a number that only counts ("500 monitor"), or "none".
    #[schemars(extend("examples" = ["none"]))]
    pub open: Option<Most>,
    /// Messages on TCP connections that have begun and are not finished: as for open. Who has so many opens no new connection.
    #[schemars(extend("default" = AtOnce::Unfinished.default()))]
    pub unfinished: Option<Most>,
}

/// The limit of a kind that a source has when nobody says anything.
fn usual(kind: usize) -> String {
    let found = DEFAULT_LIMITS.iter().find(|(of, _)| *of == kind);
    rate::text(found.map(|(_, rate)| *rate))
}

impl RatesTable {
    /// Those that are said, by position in [`sipguard_common::abi::RATE_KINDS`].
    pub(super) fn said(&self) -> impl Iterator<Item = (usize, Option<RateLimit>)> {
        let RatesTable { packets, messages, register, invite, connections, open: _, unfinished: _ } = self;
        let all = [packets, messages, register, invite, connections];
        all.into_iter().enumerate().filter_map(|(kind, rate)| Some((kind, rate.as_ref()?.0.0)))
    }

    /// Those of what there is at once that are said, of a trunk or of each source.
    pub(super) fn said_at_once(&self, trunk: Option<&str>) -> impl Iterator<Item = LimitedAtOnce> {
        [(AtOnce::Open, self.open), (AtOnce::Unfinished, self.unfinished)].into_iter().filter_map(
            move |(kind, said)| {
                said.map(|Most(most)| LimitedAtOnce { trunk: trunk.map(str::to_owned), kind, most })
            },
        )
    }
}

/// When a sender is banned.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct BansTable {
    /// Whether anybody is banned. Malformed streams are cut all the same.
    #[schemars(extend("default" = true))]
    pub enabled: Option<bool>,
    /// So many malformed streams of one address and port ban it.
    #[schemars(extend("default" = ban_rule::DEFAULT.after))]
    pub after: Option<Streams>,
    /// So many malformed streams of one address, by any ports, ban it.
    #[schemars(extend("default" = ban_rule::DEFAULT.address_after))]
    pub address_after: Option<Streams>,
    /// Within this time.
    #[schemars(extend("default" = shown(ban_rule::DEFAULT.within)))]
    pub within: Option<Text<BanSpan>>,
    /// How long the first ban is; each further one is twice as long.
    #[schemars(extend("default" = shown(ban_rule::DEFAULT.first)))]
    pub first: Option<Text<BanSpan>>,
    /// How long a ban is at the most.
    #[schemars(extend("default" = shown(ban_rule::DEFAULT.longest)))]
    pub longest: Option<Text<BanSpan>>,
    /// An address is banned only when nothing well-formed came from it for this time.
    #[schemars(extend("default" = shown(ban_rule::DEFAULT.quiet)))]
    pub quiet: Option<Text<BanSpan>>,
}

impl BansTable {
    /// What it wishes.
    pub(super) fn request(&self) -> BanRequest {
        let span = |span: &Option<Text<BanSpan>>| span.as_ref().map(|Text(BanSpan(span))| *span);
        BanRequest {
            enabled: self.enabled,
            after: self.after.map(|streams| streams.0),
            address_after: self.address_after.map(|streams| streams.0),
            within: span(&self.within),
            first: span(&self.first),
            longest: span(&self.longest),
            quiet: span(&self.quiet),
        }
    }
}

/// Who is blocked.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct Block {
    /// Requests whose User-Agent begins so, in upper or lower case: 3 to 48 bytes of it. These are scanners that nobody else is taken for.
    #[schemars(extend("default" = [], "examples" = [SCANNERS]))]
    pub user_agents: Option<Vec<Text<UserAgent>>>,
}

/// What may not be sent.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct Deny {
    /// By trunks. Such as ["tcp"].
    #[schemars(extend("default" = []))]
    pub trunks: Option<Vec<Text<Denials>>>,
    /// By devices, which is whoever is no trunk. Such as ["register/tcp"].
    #[schemars(extend("default" = []))]
    pub devices: Option<Vec<Text<Denials>>>,
}

/// `sipguard serve`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct Serve {
    /// Where it answers HTTP. Whoever gets there can read what is counted, who is blocked and what devices sent.
    #[schemars(extend("default" = DEFAULT_LISTEN))]
    pub listen: Option<Text<Listen>>,
    /// File of the history for plots, or "none". It stays below 64 MB, and may be deleted at any time.
    #[schemars(extend("default" = DEFAULT_HISTORY))]
    pub history: Option<Text<Keep>>,
    /// Whether events go to the journal of systemd, where there is one.
    #[schemars(extend("default" = true))]
    pub journal: Option<bool>,
    /// File of events, a line of JSON each with the names of Suricata's EVE, or "none".
    #[schemars(extend("default" = "none"))]
    pub log: Option<Text<Keep>>,
    /// Size of that file: full, it becomes FILE.1, in place of the one before.
    #[schemars(extend("default" = sized(DEFAULT_LOG_BYTES)))]
    pub log_size: Option<Text<Size>>,
    /// Directory of the packets that were stopped, as pcapng, or "none".
    #[schemars(extend("default" = DEFAULT_EVIDENCE))]
    pub evidence: Option<Text<KeptIn>>,
    /// How much of them is kept, all files together; the oldest go.
    #[schemars(extend("default" = sized(EvidenceLimits::default().bytes)))]
    pub evidence_size: Option<Text<Size>>,
    /// How much evidence and log leave free on their disks; auto is 1 GiB or a twentieth of the disk, whichever is less.
    #[schemars(extend("default" = "auto"))]
    pub free: Option<Text<Free>>,
    /// Where Homer listens for HEP3 over UDP, which gets the messages that were stopped, or "none". They are sent in the clear.
    #[schemars(extend("default" = "none"))]
    pub homer: Option<Text<HomerAt>>,
    /// Number of this host at Homer, its capture agent.
    #[schemars(extend("default" = DEFAULT_HOMER_ID))]
    pub homer_id: Option<Number<1, { u32::MAX }>>,
    /// Homer's password, 64 bytes at the most, or "" for none; sent in the clear as well. Whoever may read this file can read it.
    #[schemars(extend("default" = "", "writeOnly" = true))]
    pub homer_password: Option<Text<Password>>,
}

fn sized(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 30) { format!("{}G", bytes >> 30) } else { format!("{}M", bytes >> 20) }
}

/// Which process is the PBX.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct CrashTable {
    /// Its service of systemd.
    #[schemars(extend("examples" = ["asterisk.service"]))]
    pub unit: Option<Text<Unit>>,
    /// File with the number of its process.
    #[schemars(extend("examples" = ["/run/asterisk/asterisk.pid"]))]
    pub pid_file: Option<Text<Whole>>,
    /// Name or whole path of its executable.
    #[schemars(extend("examples" = ["/usr/sbin/asterisk"]))]
    pub exe: Option<Text<Executable>>,
    /// Directory where its cores appear (core, core.* or *.core), which tells the moment of a crash best. Alone, each new core is a crash.
    #[schemars(extend("examples" = ["/var/cores"]))]
    pub cores: Option<Text<Whole>>,
    /// Directory of the reports; of another one, `sipguard crash --directory` (SIPGUARD_CRASHES) reads them.
    #[schemars(extend("default" = DEFAULT_CRASHES))]
    pub directory: Option<Text<Whole>>,
    /// For how long the likely cause is blocked where it is clear which device it was, 30d at the most, or "none". Never a trunk or an
    /// allowed address.
    #[schemars(extend("default" = "none"))]
    pub quarantine: Option<Text<Quarantine>>,
}

/// What is done with cores.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct Cores {
    /// Where they appear. Only files are touched that begin as a core does, never links, and nothing in directories below.
    #[schemars(extend("examples" = ["/var/cores"]))]
    pub directory: Option<Text<Whole>>,
    /// How they are called; * stands for anything.
    #[schemars(extend("default" = DEFAULT_PATTERNS), length(min = 1))]
    pub patterns: Option<Vec<Text<Pattern>>>,
    /// How many of the newest are kept at the most, beside the first.
    #[schemars(extend("default" = CoreSettings::default().keep))]
    pub keep: Option<Number<0, 10_000>>,
    /// How much they may occupy together, where they appear and where they are moved to.
    #[schemars(extend("default" = sized(CoreSettings::default().limit)))]
    pub limit: Option<Text<Size>>,
    /// How much stays free on the disk: better more than a core has, since one that is written has some hundred megabytes before it is seen.
    #[schemars(extend("default" = sized(CoreSettings::default().free)))]
    pub free: Option<Text<Size>>,
    /// Where finished cores are moved to; else they stay.
    #[schemars(extend("examples" = ["/srv/cores"]))]
    pub move_to: Option<Text<Whole>>,
}

/// A trunk.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case", expecting = "a table")]
pub(super) struct TrunkTable {
    /// Its addresses and prefixes (/8 or longer, of IPv6 /16), at least one; of prefixes within each other, up to six deep, the longest says whose an address is.
    #[schemars(extend("examples" = [["198.51.100.0/28", "2001:db8:7::/48"]]), length(min = 1))]
    pub peers: Option<Vec<Text<Source>>>,
    /// What it may use; the rest is denied.
    #[schemars(extend("default" = ["all"], "examples" = [["udp", "tls"]]))]
    pub transports: Option<Vec<Text<Transports>>>,
    /// What it may send; the rest is denied. Over TLS no method can be told.
    #[schemars(extend("default" = ["all"], "examples" = [["INVITE", "ACK", "BYE", "CANCEL", "PRACK", "UPDATE", "OPTIONS"]]))]
    pub methods: Option<Vec<Text<Methods>>>,
    /// How its messages are judged: as everybody's (inherit), or by a profile of its own.
    #[schemars(extend("default" = "inherit"))]
    pub profile: Option<Text<trunk::TrunkProfile>>,
    /// Whether its faults are stopped: as the guard's mode says (inherit), always (enforce), or never (monitor).
    #[schemars(extend("default" = "inherit"))]
    pub mode: Option<Text<trunk::TrunkMode>>,
    /// Whether its peers are balancers: their TCP connections to guarded ports begin with a PROXY header, version 1 or 2, and whom that names is the
    /// sender.
    #[schemars(extend("default" = false))]
    pub proxy_protocol: Option<bool>,
    /// What becomes of the faults of single checks, whatever [checks] says. Such as { bad-number = "off" }.
    pub checks: Switches,
    /// What it is, for `sipguard trunk list`.
    #[schemars(extend("default" = "", "examples" = ["main carrier"]))]
    pub reason: Option<Text<Reason>>,
    /// How much it may send, all its peers together; the same keys as in [limits].
    pub limits: RatesTable,
}
