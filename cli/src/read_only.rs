//! Whether a command is known to read only, so that nobody need be asked before it runs on many clusters.
//!
//! This guards against a slip of a person who may do it all anyway; it grants nothing. It knows few words, and
//! what it does not know does not read only: a question too many costs a second.
//!
//! | what | reads only |
//! |---|---|
//! | programs | those named here, with the subcommands and the options that are named here |
//! | between them | `\|`, `;`, `&&`, `\|\|` |
//! | quotes | `'…'`, and `"…"` without `$` and `` ` `` |
//! | redirections | `2>&1`, `>&2`, and to `/dev/null` |
//! | everything else of a shell: variables, globs, substitution, files, subshells, background | no |

use std::iter::Peekable;
use std::str::Chars;

use invoke_protocol::command::{Command, Unchecked};

/// Whether the command is known to read only.
#[must_use]
pub fn is_read_only(command: &Command) -> bool {
    match command.as_unchecked() {
        Unchecked::Argv(words) => reads(words),
        Unchecked::Shell(line) => Line::new(line)
            .commands()
            .is_some_and(|commands| commands.iter().all(|words| reads(words))),
    }
}

fn reads(words: &[String]) -> bool {
    let Some((program, arguments)) = words.split_first() else {
        return false;
    };
    match program.as_str() {
        "cat" | "cut" | "echo" | "egrep" | "fgrep" | "grep" | "head" | "tail" | "tr" | "wc" => true,
        "kubectl" => KUBECTL.reads(arguments),
        "helm" => HELM.reads(arguments),
        "sort" => sort(arguments),
        "uniq" => uniq(arguments),
        "date" => arguments.iter().all(|word| is_of_date(word)),
        "jq" => !arguments.iter().any(|word| is_in_place(word)),
        _ => false,
    }
}

/// A program with subcommands. Options that only other subcommands have do no harm here: those do not read.
struct Client {
    /// Subcommands that read.
    verbs: &'static [&'static str],
    /// Those of them that have subcommands of their own which do more.
    alone: &'static [&'static str],
    long: &'static [&'static str],
    short: &'static str,
    /// Options whose value may be the next word, where they stand before the subcommand.
    with_value: &'static [&'static str],
}

const KUBECTL: Client = Client {
    verbs: &[
        "api-resources",
        "api-versions",
        "auth can-i",
        "auth whoami",
        "cluster-info",
        "config current-context",
        "config get-contexts",
        "config view",
        "describe",
        "diff",
        "events",
        "explain",
        "get",
        "logs",
        "rollout history",
        "rollout status",
        "top",
        "version",
        "wait",
    ],
    alone: &["cluster-info"],
    long: &[
        "all-containers",
        "all-namespaces",
        "all-pods",
        "api-group",
        "api-version",
        "as",
        "as-group",
        "categories",
        "chunk-size",
        "client",
        "container",
        "containers",
        "context",
        "field-selector",
        "filename",
        "follow",
        "for",
        "help",
        "ignore-errors",
        "ignore-not-found",
        "label-columns",
        "limit-bytes",
        "list",
        "max-log-requests",
        "minify",
        "namespace",
        "namespaced",
        "no-headers",
        "output",
        "prefix",
        "previous",
        "quiet",
        "raw",
        "recursive",
        "request-timeout",
        "revision",
        "selector",
        "show-events",
        "show-kind",
        "show-labels",
        "show-managed-fields",
        "since",
        "since-time",
        "sort-by",
        "subresource",
        "sum",
        "tail",
        "template",
        "timeout",
        "timestamps",
        "types",
        "verbs",
        "watch",
        "watch-only",
    ],
    short: "ALRchflnopqw",
    with_value: &["-n", "--namespace", "--context", "--request-timeout"],
};

const HELM: Client = Client {
    verbs: &[
        "get",
        "hist",
        "history",
        "list",
        "ls",
        "repo list",
        "search",
        "status",
        "version",
    ],
    alone: &[],
    long: &[
        "all",
        "all-namespaces",
        "date",
        "deployed",
        "devel",
        "failed",
        "filter",
        "help",
        "kube-context",
        "max",
        "max-col-width",
        "namespace",
        "no-headers",
        "offset",
        "output",
        "pending",
        "regexp",
        "reverse",
        "revision",
        "selector",
        "short",
        "show-desc",
        "show-resources",
        "superseded",
        "template",
        "time-format",
        "uninstalled",
        "uninstalling",
        "version",
        "versions",
    ],
    short: "Aadfhlmnoqr",
    with_value: &["-n", "--namespace", "--kube-context"],
};

impl Client {
    fn reads(&self, arguments: &[String]) -> bool {
        let mut positional = Vec::new();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            if !is_option(word) {
                positional.push(word.as_str());
            } else if !self.knows(word) {
                return false;
            } else if positional.is_empty() && !word.contains('=') {
                // The next word is the subcommand, or the value of this one.
                match self.with_value.contains(&word.as_str()) {
                    true => words.next(),
                    false => return false,
                };
            }
        }
        let is_called = |verb: &str| {
            let length = verb.split(' ').count();
            let called = positional.get(..length);
            called.is_some_and(|called| called.iter().copied().eq(verb.split(' ')))
                && (positional.len() == length || !self.alone.contains(&verb))
        };
        self.verbs.iter().any(|verb| is_called(verb))
    }

    fn knows(&self, option: &str) -> bool {
        match option.strip_prefix("--") {
            Some(long) => {
                let name = long.split_once('=').map_or(long, |(name, _)| name);
                self.long.contains(&name)
            }
            // Letters may be followed by a value: `-owide`. It is taken for letters, too, unless it follows `=`.
            None => {
                let letters = option.split('=').next().unwrap_or_default();
                let mut letters = letters.chars().skip(1);
                match letters.next() {
                    // What follows is its value in any case.
                    Some('n' | 'o' | 'l' | 'c' | 'L') => true,
                    first => first
                        .into_iter()
                        .chain(letters)
                        .all(|letter| self.short.contains(letter)),
                }
            }
        }
    }
}

/// Whether `sort` writes to its stdout only, and runs nothing.
fn sort(arguments: &[String]) -> bool {
    const LONG: [&str; 13] = [
        "--check",
        "--dictionary-order",
        "--field-separator",
        "--general-numeric-sort",
        "--human-numeric-sort",
        "--ignore-case",
        "--ignore-leading-blanks",
        "--key",
        "--month-sort",
        "--numeric-sort",
        "--reverse",
        "--unique",
        "--version-sort",
    ];
    let is_known = |word: &String| match word.split('=').next() {
        Some(long) if word.starts_with("--") => LONG.contains(&long),
        _ => {
            let mut letters = word.chars().skip(1);
            // What follows these two is their value.
            let odd = letters.find(|letter| !"bcCdfghiMmnRrsuVz".contains(*letter));
            odd.is_none_or(|letter| matches!(letter, 'k' | 't'))
        }
    };
    arguments
        .iter()
        .filter(|word| is_option(word))
        .all(is_known)
}

/// Whether `uniq` has no second file: it writes that.
fn uniq(arguments: &[String]) -> bool {
    let files = arguments.iter().filter(|word| !is_option(word));
    files.count() < 2
}

/// Whether a word lets `date` only show the time.
fn is_of_date(word: &str) -> bool {
    let begins = |with: &[&str]| with.iter().any(|beginning| word.starts_with(beginning));
    begins(&["+", "-I", "--date=", "--iso-8601", "--rfc-3339="])
        || matches!(word, "-u" | "--utc" | "-R" | "--rfc-email")
}

/// Some programs by the name of jq change files.
fn is_in_place(word: &str) -> bool {
    word.starts_with("--in-place")
        || is_option(word) && !word.starts_with("--") && word.contains('i')
}

fn is_option(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-')
}

/// A shell line, read as far as it is words, quotes and pipes.
struct Line<'a> {
    rest: Peekable<Chars<'a>>,
    commands: Vec<Vec<String>>,
    words: Vec<String>,
    word: Option<String>,
}

impl<'a> Line<'a> {
    fn new(line: &'a str) -> Self {
        Self {
            rest: line.chars().peekable(),
            commands: Vec::new(),
            words: Vec::new(),
            word: None,
        }
    }

    /// The commands that it runs, as their words; `None` if there is more to it.
    fn commands(mut self) -> Option<Vec<Vec<String>>> {
        // Nothing may follow `;`, and something must follow all else.
        let mut may_end = false;
        while let Some(character) = self.rest.next() {
            match character {
                ' ' | '\t' => self.end_word(),
                '\'' => self.single_quoted()?,
                '"' => self.double_quoted()?,
                '\\' => {
                    let escaped = self.rest.next().filter(|next| *next != '\n')?;
                    self.push(escaped);
                }
                '>' => self.redirect()?,
                ';' => {
                    self.end_command()?;
                    may_end = true;
                    continue;
                }
                '|' => {
                    self.rest.next_if_eq(&'|');
                    self.end_command()?;
                    may_end = false;
                    continue;
                }
                '&' => {
                    self.rest.next_if_eq(&'&')?;
                    self.end_command()?;
                    may_end = false;
                    continue;
                }
                '#' if self.word.is_none() => return None,
                '<' | '(' | ')' | '{' | '}' | '$' | '`' | '*' | '?' | '[' => return None,
                control if control.is_control() => return None,
                other => self.push(other),
            }
        }
        self.end_word();
        if !self.words.is_empty() {
            self.end_command()?;
        } else if !may_end {
            return None;
        }
        Some(self.commands)
    }

    fn push(&mut self, character: char) {
        self.word.get_or_insert_default().push(character);
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_command(&mut self) -> Option<()> {
        self.end_word();
        let words = std::mem::take(&mut self.words);
        self.commands.push((!words.is_empty()).then_some(words)?);
        Some(())
    }

    fn single_quoted(&mut self) -> Option<()> {
        self.word.get_or_insert_default();
        loop {
            match self.rest.next()? {
                '\'' => return Some(()),
                other => self.push(other),
            }
        }
    }

    fn double_quoted(&mut self) -> Option<()> {
        self.word.get_or_insert_default();
        loop {
            match self.rest.next()? {
                '"' => return Some(()),
                '$' | '`' => return None,
                '\\' => match self.rest.next()? {
                    escaped @ ('"' | '\\' | '$' | '`') => self.push(escaped),
                    '\n' => return None,
                    other => {
                        self.push('\\');
                        self.push(other);
                    }
                },
                other => self.push(other),
            }
        }
    }

    /// What follows `>`: only another stream of the same command, or nothing at all.
    fn redirect(&mut self) -> Option<()> {
        // The number of a stream belongs to it.
        self.word.take_if(|word| word == "1" || word == "2");
        self.end_word();
        let is_stream = self.rest.next_if_eq(&'&').is_some();
        if !is_stream {
            while self
                .rest
                .next_if(|next| matches!(next, ' ' | '\t'))
                .is_some()
            {}
        }
        let mut target = String::new();
        while let Some(next) = self
            .rest
            .next_if(|next| !matches!(next, ' ' | '\t' | ';' | '|' | '&'))
        {
            target.push(next);
        }
        let is_harmless = match is_stream {
            true => target == "1" || target == "2",
            false => target == "/dev/null",
        };
        is_harmless.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> bool {
        is_read_only(&Command::shell(line).unwrap())
    }

    #[test]
    fn readers_read() {
        for line in [
            "kubectl get pods",
            "kubectl get pods -A -o wide",
            "kubectl -n kube-system get pods -owide --sort-by=.metadata.name",
            "kubectl --namespace kube-system --context x get pods",
            "kubectl get nodes -o name | wc -l",
            "kubectl get pods -o jsonpath='{.items[*].metadata.name}'",
            r#"kubectl get pods -o "jsonpath={.items[0].metadata.name}""#,
            r#"kubectl get pods -l "app in (a,b)" -Aw"#,
            "kubectl get --raw /metrics | grep ^apiserver_ | sort -rn -k 2,2 | head -n 5",
            "kubectl describe pod/web -n default 2>/dev/null",
            "kubectl logs -f deploy/web --since=1h --tail 20 2>&1 | grep -i error",
            "kubectl top nodes; kubectl version && helm list -A || echo none",
            "kubectl auth can-i create pods --as bob",
            "kubectl config view --minify",
            "kubectl cluster-info",
            "kubectl rollout status deploy/web",
            "kubectl diff -f web.yaml",
            "helm status web -n web -o json | jq -r '.info.status'",
            "helm -n web history web",
            "cat values.yaml | tr a-z A-Z | cut -d: -f 1 | sort -u -t, -k1 | uniq -c",
            "echo 'a > b; rm x'",
            "date -u +%s",
            "date",
            "kubectl get pods;",
            "kubectl get pods > /dev/null",
            "\\kubectl get pods >&2",
            "grep -r 'x$' .",
        ] {
            assert!(shell(line), "{line}");
        }
        let argv = ["kubectl", "get", "pods", "-l", "a in (b)", "$(x)"].map(str::to_owned);
        assert!(is_read_only(&Command::argv(argv.to_vec()).unwrap()));
    }

    #[test]
    fn whatever_else_is_asked_about() {
        for line in [
            // Other subcommands, and what looks like a reader.
            "kubectl delete pod web",
            "kubectl -n get delete pod web",
            "kubectl --namespace get delete pod web",
            "kubectl -o get delete pod web",
            "kubectl apply -f x.yaml",
            "kubectl exec web -- cat /etc/passwd",
            "kubectl config set-context get",
            "kubectl config",
            "kubectl auth reconcile -f x.yaml",
            "kubectl rollout restart deploy/get",
            "kubectl cluster-info dump --output-directory=/tmp",
            "kubectl cluster-info dump",
            "kubectl",
            "helm upgrade --install get web",
            "helm template web --output-dir x",
            "helm",
            // Options that write, run, or talk to somebody else.
            "kubectl get pods --token=abc",
            "kubectl get pods --token abc",
            "kubectl get pods -s https://elsewhere",
            "kubectl get pods --server=https://elsewhere",
            "kubectl get pods -As=https://elsewhere",
            "kubectl get pods --kubeconfig evil",
            "kubectl get pods --profile=cpu --profile-output=x",
            "kubectl get pods --cache-dir=/x",
            "helm list --kubeconfig x",
            "helm get values web --post-renderer ./x",
            "sort -o out in",
            "sort -ro out in",
            "sort -oout in",
            "sort --output=out in",
            "sort --outp out in",
            "sort --compress-program=./x in",
            "sort in -T /tmp",
            "uniq in out",
            "uniq -c in out",
            "date -s 2020-01-01",
            "date --set=2020-01-01",
            "date 010100002020",
            "jq -i . file",
            "jq -ri . file",
            "jq --in-place . file",
            // Programs that can do anything.
            "sh -c 'kubectl get pods'",
            "bash script.sh",
            "./kubectl get pods",
            "/tmp/kubectl get pods",
            "env kubectl get pods",
            "sudo kubectl get pods",
            "time kubectl get pods",
            "kubectl get pods -o name | xargs kubectl delete",
            "kubectl get pods | tee out",
            "kubectl get pods | awk '{system(\"x\")}'",
            "kubectl get pods && ./migrate.sh",
            "kubectl get pods; rm -rf /",
            "rm x",
            "eval kubectl get pods",
            "exec kubectl get pods",
            ". ./x",
            // What the shell makes of it.
            "kubectl get pods > out",
            "kubectl get pods >out",
            "kubectl get pods >> out",
            "kubectl get pods >| out",
            "kubectl get pods 2>err",
            "kubectl get pods 2>&1 >out",
            "kubectl get pods &> out",
            "kubectl get pods >& out",
            "kubectl get pods > /dev/nullx",
            "kubectl get pods > /dev/null/../x",
            "kubectl get pods 1>&-",
            "cat < in",
            "cat <<EOF\nx\nEOF",
            "cat <(rm x)",
            "kubectl get pods $(rm x)",
            "kubectl get pods `rm x`",
            "kubectl get pods \"$(rm x)\"",
            "kubectl get pods \"`rm x`\"",
            "kubectl get $WHAT",
            "echo $'\\x60'",
            "echo \"$HOME\"",
            "(kubectl get pods)",
            "{ kubectl get pods; }",
            "kubectl get {pods,nodes}",
            "sort *",
            "cat file?",
            "cat [ab]",
            "kubectl get pods &",
            "kubectl get pods & rm x",
            "kubectl get pods |& cat",
            "kubectl get pods\nrm x",
            "kubectl get pods\nkubectl get nodes",
            "kubectl get pods # comment",
            "kubectl get pods \\\n--all",
            "A=b kubectl get pods",
            "! kubectl get pods",
            "if true; then rm x; fi",
            "f() { rm x; }; f",
            // No lines at all.
            "kubectl get pods |",
            "kubectl get pods &&",
            "| cat",
            ";",
            "kubectl get pods ;; cat",
            "kubectl get 'pods",
            "kubectl get \"pods",
            "kubectl get pods \\",
            "''",
            "kubectl\u{a0}get pods",
        ] {
            assert!(!shell(line), "{line}");
        }
        let argv = ["sh", "-c", "kubectl get pods"].map(str::to_owned);
        assert!(!is_read_only(&Command::argv(argv.to_vec()).unwrap()));
    }
}
