//! Access policies.

use crate::ids::PolicyId;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// An access policy has these rules from here on; it may be new.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct PolicySet {
    /// Its number.
    pub policy: PolicyId,
    /// Its name, unique among the present ones; it keeps it.
    pub name: String,
    /// The first one that fits a client decides; whom none fits is refused. At most [`PolicySet::RULES_MAX`].
    pub rules: Vec<AccessRule>,
}

impl PolicySet {
    /// Most rules of a policy.
    pub const RULES_MAX: usize = 64;
}

/// What clients of some addresses may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct AccessRule {
    /// First address of the range, as IPv6; IPv4 is mapped (`::ffff:a.b.c.d`).
    pub addr: [u8; 16],
    /// How many of its first bits an address must share, 0 to 128; of an IPv4 range 96 more than it is written with.
    pub prefix: u8,
    /// What they may.
    pub access: Access,
    /// Who is not who they say they are.
    pub squash: Squash,
    /// User that a squashed one becomes, and one without credentials.
    pub anon_uid: u32,
    /// Group likewise.
    pub anon_gid: u32,
    /// Only calls from a port below 1024 fit this rule's access; others are refused.
    pub privileged_port: bool,
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Access {
    /// Nothing: as if there were no junction.
    None,
    /// Everything that changes nothing.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

/// Who becomes nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Squash {
    /// No one.
    None,
    /// User 0 and group 0.
    Root,
    /// Everyone.
    All,
}

/// An access policy was removed.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct PolicyRemoved {
    /// Which.
    pub policy: PolicyId,
}

/// User and group of squashed callers, where nothing else is said.
pub const NOBODY: u32 = 65534;

impl AccessRule {
    /// The rule is about this address.
    #[must_use]
    pub fn covers(&self, addr: IpAddr) -> bool {
        let addr = match addr {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
        (u128::from(addr) ^ u128::from_be_bytes(self.addr)) & mask == 0
    }
}

impl AccessRule {
    fn with_defaults(self) -> Self {
        Self { squash: Squash::Root, anon_uid: NOBODY, anon_gid: NOBODY, privileged_port: true, ..self }
    }

    /// It can be read back from its text, as every rule of a policy must.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.to_string().parse().as_ref() == Ok(self)
    }
}

/// `CLIENT=OPTION,…`, each option as in exports(5); all are written out but for the user and group nobody.
impl fmt::Display for AccessRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = Ipv6Addr::from(self.addr);
        match addr.to_ipv4_mapped() {
            _ if self.prefix == 0 => write!(f, "*=")?,
            Some(v4) if self.prefix == 128 => write!(f, "{v4}=")?,
            Some(v4) if self.prefix >= 96 => write!(f, "{v4}/{}=", self.prefix - 96)?,
            _ if self.prefix == 128 => write!(f, "{addr}=")?,
            _ => write!(f, "{addr}/{}=", self.prefix)?,
        }
        f.write_str(match self.access {
            Access::None if *self == self.with_defaults() => return f.write_str("none"),
            Access::None => "none",
            Access::ReadOnly => "ro",
            Access::ReadWrite => "rw",
        })?;
        f.write_str(match self.squash {
            Squash::None => ",no_root_squash",
            Squash::Root => ",root_squash",
            Squash::All => ",all_squash",
        })?;
        f.write_str(if self.privileged_port { ",secure" } else { ",insecure" })?;
        for (name, id) in [("anonuid", self.anon_uid), ("anongid", self.anon_gid)] {
            if id != NOBODY {
                write!(f, ",{name}={id}")?;
            }
        }
        Ok(())
    }
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRule(String);

impl FromStr for AccessRule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let bad = |what: String| BadRule(format!("'{}': {what}", text.escape_debug()));
        let (client, options) =
            text.split_once('=').ok_or_else(|| bad("no '=' between the client and what it may".into()))?;
        let (addr, prefix) = client_of(client).map_err(bad)?;
        let (mut access, mut squash, mut privileged, mut uid, mut gid) = (None, None, None, None, None);
        for option in options.split(',') {
            let number = |id: &str| id.parse::<u32>().map_err(|_| bad(format!("'{id}' is no user or group number")));
            let twice = match option {
                "rw" => access.replace(Access::ReadWrite).is_some(),
                "ro" => access.replace(Access::ReadOnly).is_some(),
                "none" => access.replace(Access::None).is_some(),
                "root_squash" => squash.replace(Squash::Root).is_some(),
                "no_root_squash" => squash.replace(Squash::None).is_some(),
                "all_squash" => squash.replace(Squash::All).is_some(),
                "secure" => privileged.replace(true).is_some(),
                "insecure" => privileged.replace(false).is_some(),
                other => match other.split_once('=') {
                    Some(("anonuid", id)) => uid.replace(number(id)?).is_some(),
                    Some(("anongid", id)) => gid.replace(number(id)?).is_some(),
                    _ => return Err(bad(format!("'{}' is no option", other.escape_debug()))),
                },
            };
            if twice {
                return Err(bad(format!("'{option}' says again, or otherwise, what was said")));
            }
        }
        Ok(Self {
            addr: addr.octets(),
            prefix,
            access: access.ok_or_else(|| bad("one of rw, ro and none is missing".into()))?,
            squash: squash.unwrap_or(Squash::Root),
            anon_uid: uid.unwrap_or(NOBODY),
            anon_gid: gid.unwrap_or(NOBODY),
            privileged_port: privileged.unwrap_or(true),
        })
    }
}

/// `*`, an address, or `address/prefix`.
fn client_of(text: &str) -> Result<(Ipv6Addr, u8), String> {
    if text == "*" {
        return Ok((Ipv6Addr::UNSPECIFIED, 0));
    }
    let (addr, prefix) = text.split_once('/').map_or((text, None), |(addr, prefix)| (addr, Some(prefix)));
    let wanted = "name a client as *, an address or address/prefix";
    let addr: IpAddr = addr.parse().map_err(|_| format!("'{}' is no address; {wanted}", addr.escape_debug()))?;
    let (bits, before) = if addr.is_ipv4() { (32, 96) } else { (128, 0) };
    let prefix = match prefix {
        None => bits,
        Some(prefix) => match prefix.parse::<u8>() {
            Ok(n) if n <= bits && prefix.bytes().all(|b| b.is_ascii_digit()) => n,
            _ => return Err(format!("'{}' is no prefix from 0 to {bits}", prefix.escape_debug())),
        },
    };
    let all = match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let prefix = prefix + before;
    let first = u128::from(all) & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    if first != u128::from(all) {
        return Err("the address has bits behind its prefix".into());
    }
    Ok((all, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> AccessRule {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn a_rule_is_read_back_from_its_text() {
        for (text, shown) in [
            ("*=rw", "*=rw,root_squash,secure"),
            ("*=none,insecure", "*=none,root_squash,insecure"),
            ("10.0.0.0/8=ro,insecure", "10.0.0.0/8=ro,root_squash,insecure"),
            ("192.0.2.7=none", "192.0.2.7=none"),
            ("0.0.0.0/0=rw,no_root_squash", "0.0.0.0/0=rw,no_root_squash,secure"),
            ("fd00::/8=rw,all_squash,anonuid=7,anongid=0", "fd00::/8=rw,all_squash,secure,anonuid=7,anongid=0"),
            ("::1=rw", "::1=rw,root_squash,secure"),
        ] {
            assert_eq!(rule(text).to_string(), shown);
            assert_eq!(rule(shown), rule(text));
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_the_reason() {
        for (text, reason) in [
            ("10.0.0.0/8", "no '='"),
            ("10.0.0.1/8=rw", "bits behind its prefix"),
            ("10.0.0.0/33=rw", "no prefix"),
            ("10.0.0.0/+8=rw", "no prefix"),
            ("host=rw", "no address"),
            ("=rw", "no address"),
            ("*=", "no option"),
            ("*=root_squash", "rw, ro and none"),
            ("*=rw,ro", "again"),
            ("*=rw,anonuid=-1", "number"),
            ("*=rw,sync", "no option"),
        ] {
            let error = text.parse::<AccessRule>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_rule_covers_its_range_and_nothing_beside_it() {
        let covers = |text: &str, addr: &str| rule(text).covers(addr.parse().unwrap());
        assert!(covers("10.1.0.0/16=rw", "10.1.255.255"));
        assert!(covers("10.1.0.0/16=rw", "::ffff:10.1.0.0"));
        assert!(!covers("10.1.0.0/16=rw", "10.2.0.0"));
        assert!(!covers("10.1.0.0/16=rw", "10.0.255.255"));
        assert!(covers("192.0.2.7=rw", "192.0.2.7") && !covers("192.0.2.7=rw", "192.0.2.6"));
        assert!(covers("*=rw", "::1") && covers("*=rw", "203.0.113.1"));
        assert!(covers("0.0.0.0/0=rw", "203.0.113.1") && !covers("0.0.0.0/0=rw", "2001:db8::1"));
        assert!(covers("2001:db8::/33=rw", "2001:db8:7fff::1") && !covers("2001:db8::/33=rw", "2001:db8:8000::1"));
    }
}
