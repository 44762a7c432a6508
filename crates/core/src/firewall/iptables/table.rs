//! A table as it is, and the changes to make it as it should be.

use std::collections::BTreeMap;

use super::rule::Rule;

/// A table as read, changed step by step in memory; each step is also a line for `iptables-restore`, so that what is planned next sees
/// what was planned before, and nothing is written that is there already.
#[derive(Debug, Clone)]
pub(super) struct Table {
    name: &'static str,
    chains: BTreeMap<String, Vec<Rule>>,
    lines: Vec<Line>,
    unwritable: Option<String>,
}

/// A change.
#[derive(Debug, Clone)]
struct Line {
    /// A rule is deleted by its own words.
    text: String,
    /// It is deleted by its number in the chain.
    numbered: Option<String>,
}

/// The changes of a table, for `iptables-restore --noflush`, which makes all of them or none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// With rules to be deleted by their own words: what somebody else does to the chain meanwhile does no harm.
    pub(super) text: String,
    /// By their numbers: also those whose words do not say what they are.
    pub(super) numbered: String,
}

/// Output of `iptables-save` that is not the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// The table has rules of nftables that iptables can't show.
    Incompatible,
    /// A line that is none of the format.
    Line(String),
}

impl Changes {
    /// Those of one more table.
    pub(super) fn extend(&mut self, other: &Self) {
        self.text.push_str(&other.text);
        self.numbered.push_str(&other.numbered);
    }
}

impl Table {
    /// Reads what `iptables-save -t NAME` printed. A table that does not exist yet is printed as nothing, and is empty.
    pub(super) fn read(name: &'static str, text: &str) -> Result<Self, Unreadable> {
        let mut table = Self { name, chains: BTreeMap::new(), lines: Vec::new(), unwritable: None };
        for line in text.lines() {
            match line.as_bytes().first() {
                // `# Table `nat' is incompatible, use 'nft' tool.`: exit status 0, and no table.
                Some(b'#') if line.contains(" is incompatible") => return Err(Unreadable::Incompatible),
                None | Some(b'#' | b'*') => {}
                Some(b':') => {
                    let chain = line[1..].split(' ').next().unwrap_or_default();
                    table.chains.entry(chain.to_owned()).or_default();
                }
                Some(b'-') => {
                    let mut words = Rule::split(line);
                    if words.len() < 2 || words[0] != "-A" {
                        return Err(Unreadable::Line(line.to_owned()));
                    }
                    let rule = words.split_off(2);
                    let chain = words.swap_remove(1);
                    table.chains.entry(chain).or_default().push(Rule::new(rule));
                }
                Some(_) if line == "COMMIT" => {}
                Some(_) => return Err(Unreadable::Line(line.to_owned())),
            }
        }
        Ok(table)
    }

    /// Whether there is nothing in it but the chains that the kernel calls.
    pub(super) fn is_bare(&self) -> bool {
        const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
        self.chains.iter().all(|(name, rules)| rules.is_empty() && BUILT_IN.contains(&name.as_str()))
    }

    /// The name: `nat`, `filter`.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether anything would change.
    pub(super) fn is_changed(&self) -> bool {
        !self.lines.is_empty()
    }

    /// The first change, as a line of `iptables-restore`: what is missing, rather than what only moves or is in the way.
    pub(super) fn first_change(&self) -> Option<&str> {
        let lines = || self.lines.iter().map(|line| line.text.as_str());
        let moves = |line: &str| lines().any(|other| other.starts_with("-D") && other[2..] == line[2..]);
        lines().find(|line| !line.starts_with("-D") && !moves(line)).or_else(|| lines().next())
    }

    /// The changes. Error: a word that can't be written.
    pub(super) fn changes(&self) -> Result<Changes, String> {
        if let Some(word) = &self.unwritable {
            return Err(word.clone());
        }
        let block = |line: fn(&Line) -> &str| {
            let lines: Vec<&str> = self.lines.iter().map(line).collect();
            format!("*{}\n{}\nCOMMIT\n", self.name, lines.join("\n"))
        };
        Ok(Changes {
            text: block(|line| &line.text),
            numbered: block(|line| line.numbered.as_ref().unwrap_or(&line.text)),
        })
    }

    /// Whether the chain is there.
    pub(super) fn has_chain(&self, chain: &str) -> bool {
        self.chains.contains_key(chain)
    }

    /// The rules of a chain, in order; none if it is not there.
    pub(super) fn rules(&self, chain: &str) -> &[Rule] {
        self.chains.get(chain).map_or(&[], Vec::as_slice)
    }

    /// The names of all chains.
    pub(super) fn chain_names(&self) -> impl Iterator<Item = &str> {
        self.chains.keys().map(String::as_str)
    }

    /// Where a rule stands in a chain, from 0.
    pub(super) fn position(&self, chain: &str, rule: &Rule) -> Option<usize> {
        self.rules(chain).iter().position(|other| other.is(rule))
    }

    /// Whether a rule is in a chain.
    pub(super) fn has(&self, chain: &str, rule: &Rule) -> bool {
        self.position(chain, rule).is_some()
    }

    /// Whether any rule leads to the chain.
    pub(super) fn is_referenced(&self, chain: &str) -> bool {
        self.chains.values().flatten().any(|rule| rule.target() == Some(chain))
    }

    fn write(&mut self, command: &str, chain: &str, rule: Option<&Rule>) {
        self.write_numbered(command, chain, rule, None);
    }

    fn write_numbered(&mut self, command: &str, chain: &str, rule: Option<&Rule>, number: Option<usize>) {
        let words = rule.map_or(&[][..], Rule::words);
        let line = Rule::new([command, chain]).with(words.iter().cloned());
        match line.line() {
            Some(text) => {
                let numbered = number.map(|number| format!("{command} {chain} {number}"));
                self.lines.push(Line { text, numbered });
            }
            None => self.unwritable = Some(line.words().join(" ")),
        }
    }

    /// Makes a chain unless it is there. `-N` and not `:CHAIN`, which would empty a chain that somebody else made in the meantime.
    pub(super) fn ensure_chain(&mut self, chain: &str) {
        if !self.has_chain(chain) {
            self.chains.insert(chain.to_owned(), Vec::new());
            self.write("-N", chain, None);
        }
    }

    /// Adds a rule at the end of a chain.
    pub(super) fn append(&mut self, chain: &str, rule: Rule) {
        self.write("-A", chain, Some(&rule));
        self.chains.entry(chain.to_owned()).or_default().push(rule);
    }

    /// Adds a rule at the beginning of a chain.
    pub(super) fn prepend(&mut self, chain: &str, rule: Rule) {
        self.write("-I", chain, Some(&rule));
        self.chains.entry(chain.to_owned()).or_default().insert(0, rule);
    }

    /// Adds a rule at the end of a chain unless it is somewhere in it.
    pub(super) fn ensure_last(&mut self, chain: &str, rule: Rule) {
        if !self.has(chain, &rule) {
            self.append(chain, rule);
        }
    }

    /// Adds a rule at the beginning of a chain unless it is somewhere in it.
    pub(super) fn ensure_first(&mut self, chain: &str, rule: Rule) {
        if !self.has(chain, &rule) {
            self.prepend(chain, rule);
        }
    }

    /// Deletes the rules of a chain for which `unwanted` holds. Returns whether there were any.
    pub(super) fn delete(&mut self, chain: &str, mut unwanted: impl FnMut(&Rule) -> bool) -> bool {
        let Some(rules) = self.chains.get_mut(chain).map(std::mem::take) else { return false };
        let count = rules.len();
        let mut kept = Vec::with_capacity(count);
        for rule in rules {
            if unwanted(&rule) {
                // What was before it and is to go is gone by then.
                self.write_numbered("-D", chain, Some(&rule), Some(kept.len() + 1));
            } else {
                kept.push(rule);
            }
        }
        let any = kept.len() < count;
        self.chains.insert(chain.to_owned(), kept);
        any
    }

    /// Empties and deletes a chain that no rule leads to any more; leaves any other. Should a rule have come to lead to it since the
    /// table was read, the kernel refuses the whole change, and it is planned again.
    pub(super) fn delete_chain(&mut self, chain: &str) {
        if !self.has_chain(chain) || self.is_referenced(chain) {
            return;
        }
        if !self.rules(chain).is_empty() {
            self.write("-F", chain, None);
        }
        self.write("-X", chain, None);
        self.chains.remove(chain);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_table_with_a_rule_or_a_chain_of_somebodys_is_not_bare() {
        let bare = |text: &str| super::Table::read("filter", text).unwrap().is_bare();
        assert!(bare("") && bare("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\nCOMMIT\n"));
        assert!(!bare("*filter\n:INPUT ACCEPT [0:0]\n:MINE - [0:0]\nCOMMIT\n"));
        assert!(!bare("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j DROP\nCOMMIT\n"));
    }

    use super::*;

    const SAVED: &str = "# Generated by iptables-save\n*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [3:180]\n:CNI-X - [0:0]\n\
                         -A POSTROUTING -s 10.1.0.5/32 -m comment --comment \"name: \\\"n\\\" id: \\\"c\\\"\" -j CNI-X\nCOMMIT\n# Completed\n";

    #[test]
    fn nothing_is_written_that_is_there_already() {
        let mut table = Table::read("nat", SAVED).unwrap();
        table.ensure_chain("CNI-X");
        let jump = Rule::new(["-s", "10.1.0.5"]).jump("CNI-X").comment("name: \"n\" id: \"c\"");
        table.ensure_last("POSTROUTING", jump);
        assert!(!table.is_changed());
    }

    #[test]
    fn rules_can_be_deleted_by_number() {
        let rules = ["1", "2", "3", "4"].map(|number| format!("-A CNI-X -s 10.1.0.{number}/32 -j ACCEPT\n"));
        let mut table =
            Table::read("nat", &SAVED.replace("COMMIT\n", &format!("{}COMMIT\n", rules.concat()))).unwrap();
        table.prepend("CNI-X", Rule::new(["-s", "10.1.0.0"]).jump("ACCEPT"));
        assert!(table.delete("CNI-X", |rule| {
            ["10.1.0.1/32", "10.1.0.4/32"].iter().any(|word| rule.words().contains(&(*word).to_owned()))
        }));
        let changes = table.changes().unwrap();
        assert_eq!(
            changes.text,
            "*nat\n-I CNI-X -s 10.1.0.0 -j ACCEPT\n-D CNI-X -s 10.1.0.1/32 -j ACCEPT\n-D CNI-X -s 10.1.0.4/32 -j ACCEPT\nCOMMIT\n"
        );
        assert_eq!(
            changes.numbered,
            "*nat\n-I CNI-X -s 10.1.0.0 -j ACCEPT\n-D CNI-X 2\n-D CNI-X 4\nCOMMIT\n"
        );
    }

    #[test]
    fn a_chain_that_is_led_to_stays() {
        let mut table = Table::read("nat", SAVED).unwrap();
        table.delete_chain("CNI-X");
        assert!(!table.is_changed());
        assert!(table.delete("POSTROUTING", |rule| rule.target() == Some("CNI-X")));
        table.delete_chain("CNI-X");
        assert_eq!(
            table.changes().unwrap().text,
            "*nat\n-D POSTROUTING -s 10.1.0.5/32 -m comment --comment \"name: \\\"n\\\" id: \\\"c\\\"\" -j CNI-X\n-X CNI-X\nCOMMIT\n"
        );
    }

    #[test]
    fn a_table_iptables_cannot_show_is_not_taken_for_an_empty_one() {
        let text = "# Table `nat' is incompatible, use 'nft' tool.\n";
        assert_eq!(Table::read("nat", text).unwrap_err(), Unreadable::Incompatible);
        assert!(Table::read("nat", "Segmentation fault\n").is_err());
        assert!(Table::read("nat", "").is_ok());
    }
}
