//! `conditionsV4` and `conditionsV6` in nft's words.
//!
//! They come as tokens of the language that the `nft` program reads. There is no such program here, so the matches that are of use for
//! published ports are understood, and anything else is refused by name.

use std::net::IpAddr;

use cni::Cidr;

use crate::firewall::FirewallError;
use crate::nft::{Field, Rule, Value};

/// Adds the matches of the tokens to a rule, all of which must hold.
pub(super) fn compile(tokens: &[String], mut rule: Rule) -> Result<Rule, FirewallError> {
    let words: Vec<&str> = tokens.iter().flat_map(|token| token.split_whitespace()).collect();
    let mut rest = words.as_slice();
    while !rest.is_empty() {
        let (next, left) = one(rest, rule)?;
        rule = next;
        rest = left;
    }
    Ok(rule)
}

fn refused(words: &[&str]) -> FirewallError {
    FirewallError::Unsupported {
        what: format!(
            "the condition {:?} (it knows `[ip|ip6] saddr|daddr [!=] CIDR`, `[meta] iifname|oifname [!=] NAME`, `[meta] mark VALUE`)",
            words.join(" ")
        ),
        backend: "nftables",
    }
}

fn one<'w>(words: &'w [&'w str], rule: Rule) -> Result<(Rule, &'w [&'w str]), FirewallError> {
    let (subject, rest): (&str, &[&str]) = match words {
        [family @ ("ip" | "ip6"), field @ ("saddr" | "daddr"), rest @ ..] => {
            let subject = match (*family, *field) {
                ("ip", "saddr") => "ip saddr",
                ("ip", _) => "ip daddr",
                (_, "saddr") => "ip6 saddr",
                _ => "ip6 daddr",
            };
            (subject, rest)
        }
        ["meta", field @ ("iifname" | "oifname" | "mark"), rest @ ..]
        | [field @ ("iifname" | "oifname"), rest @ ..] => (field, rest),
        _ => return Err(refused(words)),
    };
    let (negated, rest) = match rest {
        ["!=", rest @ ..] => (true, rest),
        ["==", rest @ ..] | rest => (false, rest),
    };
    let [operand, rest @ ..] = rest else { return Err(refused(words)) };
    let rule = match subject {
        "iifname" => name(rule, Field::IIFNAME, operand, negated),
        "oifname" => name(rule, Field::OIFNAME, operand, negated),
        "mark" => {
            let mark = number(operand).ok_or_else(|| refused(words))?;
            if negated {
                rule.is_not(Field::MARK, Value::Mark(mark))
            } else {
                rule.is(Field::MARK, Value::Mark(mark))
            }
        }
        _ => {
            let cidr = network(operand)
                .filter(|cidr| cidr.is_ipv4() == subject.starts_with("ip "))
                .ok_or_else(|| refused(words))?;
            let field = match subject {
                "ip saddr" => Field::IP_SADDR,
                "ip daddr" => Field::IP_DADDR,
                "ip6 saddr" => Field::IP6_SADDR,
                _ => Field::IP6_DADDR,
            };
            let network = cidr.network();
            if negated {
                rule.outside(field, network.address(), network.prefix())
            } else {
                rule.within(field, network.address(), network.prefix())
            }
        }
    };
    Ok((rule, rest))
}

fn name(rule: Rule, field: Field, operand: &str, negated: bool) -> Rule {
    let value = Value::IfName(operand.trim_matches('"').to_owned());
    if negated { rule.is_not(field, value) } else { rule.is(field, value) }
}

fn network(text: &str) -> Option<Cidr> {
    text.parse::<Cidr>().ok().or_else(|| text.parse::<IpAddr>().ok().map(Cidr::host))
}

fn number(text: &str) -> Option<u32> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |digits| u32::from_str_radix(digits, 16).ok())
}
