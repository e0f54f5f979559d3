// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds the program in the command line of an interpreter: the script, the module, the jar.
//!
//! In: facts about a process. Out: a name that people would know the program by, or nothing where the executable is the
//! program or no name is certain. No other argument leaves this module: the rest may hold secrets.

use super::file_name;
use crate::process::ProcessFacts;

/// The name of the program that an interpreter runs. Nothing for other executables, for code given on the command
/// line and for interactive use.
pub(super) fn program(facts: &ProcessFacts) -> Option<String> {
    let interpreter = Interpreter::of(file_name(&facts.executable))?;
    let (command, arguments) = facts.arguments.split_first()?;
    let here = Directory(&facts.directory);
    let name = if arguments.is_empty() {
        title(command, here)?
    } else {
        match interpreter {
            Interpreter::Scripts(grammar) => named(&grammar.find(arguments)?, here)?,
            Interpreter::Java => java(arguments, here)?,
            Interpreter::Dotnet => here.name(arguments.iter().find(|argument| argument.ends_with(".dll"))?)?,
            Interpreter::Applets => file_name(command).to_owned(),
        }
    };
    (!name.is_empty() && !name.contains(char::is_control)).then_some(name)
}

/// An executable that runs programs of many names.
#[derive(Clone, Copy)]
enum Interpreter {
    Scripts(&'static Grammar),
    Java,
    Dotnet,
    /// Many programs in one file; the name that it was called by tells which.
    Applets,
}

impl Interpreter {
    fn of(executable: &str) -> Option<Self> {
        // python3.11, php8.2, ruby3.1
        let name = executable.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
        match name {
            "java" => Some(Self::Java),
            "dotnet" => Some(Self::Dotnet),
            "busybox" | "toybox" => Some(Self::Applets),
            _ => GRAMMARS.iter().find(|grammar| grammar.names.contains(&name)).map(Self::Scripts),
        }
    }
}

// --- Scripts ---

/// What an interpreter was told to run, with the arguments that come after it.
struct Program<'a> {
    what: What<'a>,
    arguments: &'a [String],
}

#[derive(Clone, Copy)]
enum What<'a> {
    /// A path, relative to the process's directory.
    Script(&'a str),
    /// A module by its dotted name.
    Module(&'a str),
}

/// How an interpreter reads its options. Short ones may stand together and have their value attached (`-Wi`, `-um mod`).
struct Grammar {
    names: &'static [&'static str],
    /// Short options with a value, attached or in the next argument.
    valued: &'static str,
    /// Short options whose value is always attached: what follows the letter is no option.
    attached: &'static str,
    /// Short options that bring the code themselves.
    code: &'static str,
    /// The short option that names a module, and the one that names the script.
    module: Option<char>,
    script: Option<char>,
    /// Long options whose value is the next argument.
    long_valued: &'static [&'static str],
    long_code: &'static [&'static str],
    /// Words before the script that are not the script.
    subcommands: &'static [&'static str],
}

impl Grammar {
    fn find<'a>(&self, arguments: &'a [String]) -> Option<Program<'a>> {
        let mut rest = arguments;
        loop {
            let (argument, after) = rest.split_first()?;
            rest = after;
            if argument == "--" {
                let (script, arguments) = rest.split_first()?;
                return Some(Program { what: What::Script(script), arguments });
            }
            if argument.starts_with("--") {
                if self.long_code.contains(&argument.split('=').next().unwrap_or(argument)) {
                    return None;
                }
                if self.long_valued.contains(&argument.as_str()) {
                    rest = rest.get(1..)?;
                }
                continue;
            }
            match argument.strip_prefix('-') {
                // Standard input.
                Some("") => return None,
                Some(letters) => {
                    if let Some(program) = self.letters(letters, &mut rest)? {
                        return Some(program);
                    }
                }
                None if self.subcommands.contains(&argument.as_str()) => {}
                None => return Some(Program { what: What::Script(argument), arguments: rest }),
            }
        }
    }

    /// One argument of short options. Outer nothing: there is no program to name. Inner nothing: it comes later.
    fn letters<'a>(&self, letters: &'a str, rest: &mut &'a [String]) -> Option<Option<Program<'a>>> {
        for (at, letter) in letters.char_indices() {
            if self.code.contains(letter) {
                return None;
            }
            if self.attached.contains(letter) {
                break;
            }
            let what: fn(&'a str) -> What<'a> = match Some(letter) {
                module if module == self.module => What::Module,
                script if script == self.script => What::Script,
                _ if self.valued.contains(letter) => {
                    if letters.len() == at + letter.len_utf8() {
                        *rest = rest.get(1..)?;
                    }
                    break;
                }
                _ => continue,
            };
            let attached = &letters[at + letter.len_utf8()..];
            if !attached.is_empty() {
                return Some(Some(Program { what: what(attached), arguments: rest }));
            }
            let (value, arguments) = rest.split_first()?;
            return Some(Some(Program { what: what(value), arguments }));
        }
        Some(None)
    }
}

/// The name of a program; behind a launcher, of what it launches.
fn named(program: &Program<'_>, here: Directory<'_>) -> Option<String> {
    let own = match program.what {
        What::Script(path) => stem(file_name(path)),
        What::Module(module) => module,
    };
    let launcher = LAUNCHERS.iter().find(|(names, _)| names.contains(&own)).map(|(_, launches)| *launches);
    let arguments = program.arguments;
    match (launcher, program.what) {
        (Some(Launches::Application), _) => application(arguments).map(|module| module_name(module, here)),
        (Some(Launches::NamedByOption), _) => option(arguments, &["-A", "--app"]).and_then(|app| {
            let module = app.split(':').next().unwrap_or(app);
            if module.contains('/') { here.name(module) } else { Some(module_name(stem(module), here)) }
        }),
        (Some(Launches::Script), _) => {
            arguments.iter().find(|word| stem(word) != *word).and_then(|path| here.name(path))
        }
        (Some(Launches::Folder), _) => None,
        (Some(Launches::Command), _) => {
            let skip = usize::from(arguments.first().is_some_and(|word| word == "exec"));
            let (command, arguments) = arguments.get(skip..)?.split_first()?;
            return named(&Program { what: What::Script(command), arguments }, here);
        }
        (None, What::Script(path)) => return here.name(path),
        (None, What::Module(module)) => return Some(module_name(module, here)),
    }
    // A launcher that found its application by looking around where it was started.
    .or_else(|| here.name("."))
    .or_else(|| Some(own.to_owned()))
}

/// What a launcher's arguments say.
#[derive(Clone, Copy)]
enum Launches {
    /// `module:callable`.
    Application,
    /// `--app module`.
    NamedByOption,
    /// A script.
    Script,
    /// Another command, as if it stood alone.
    Command,
    /// Nothing: it serves the folder it is started in.
    Folder,
}

/// The module of the first argument like `shop.wsgi:app`; else a module alone, where no option can have it as a value.
fn application(arguments: &[String]) -> Option<&str> {
    let callable = arguments.iter().find_map(|argument| {
        let (module, callable) = argument.split_once(':')?;
        let callable = callable.split('(').next().unwrap_or(callable);
        (is_module(module) && is_module(callable)).then_some(module)
    });
    let alone = |argument: &&String| is_module(argument);
    let last = match arguments {
        [.., before, last] if !before.starts_with('-') => Some(last),
        _ => None,
    };
    callable.or_else(|| arguments.first().filter(alone).or(last.filter(alone)).map(String::as_str))
}

/// The value of the first of these options: `-A shop`, `--app=shop`.
fn option<'a>(arguments: &'a [String], names: &[&str]) -> Option<&'a str> {
    arguments.iter().enumerate().find_map(|(at, argument)| match argument.split_once('=') {
        Some((name, value)) if names.contains(&name) => Some(value),
        _ if names.contains(&argument.as_str()) => arguments.get(at + 1).map(String::as_str),
        _ => None,
    })
}

/// Names joined by dots, as languages have them.
fn is_module(text: &str) -> bool {
    text.split('.').all(|part| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    })
}

/// `shop.main` → `shop`: the last parts that say something. If none does, the folder.
fn module_name(module: &str, here: Directory<'_>) -> String {
    let mut telling = module;
    while GENERIC.contains(&telling.rsplit('.').next().unwrap_or(telling)) {
        match telling.rsplit_once('.') {
            Some((package, _)) => telling = package,
            None => return here.name(".").unwrap_or_else(|| module.to_owned()),
        }
    }
    telling.to_owned()
}

// --- Titles ---

/// A single argument is either the interpreter's own name (interactive), or a title that the program wrote over its
/// arguments: `gunicorn: worker [shop.wsgi]`, `puma 6.4.0 (tcp://0.0.0.0:3000) [shop]`, `next-server (v14)`.
fn title(command: &str, here: Directory<'_>) -> Option<String> {
    if let Some((_, bracket)) = command.strip_suffix(']').and_then(|title| title.rsplit_once(" [")) {
        let module = bracket.split(':').next().unwrap_or(bracket);
        if is_module(module) {
            return Some(module_name(module, here));
        }
        if !bracket.contains(' ') {
            return Some(bracket.to_owned());
        }
    }
    let word = command.split_whitespace().next()?.trim_end_matches(':');
    // A login shell's name begins with a dash.
    let word = file_name(word);
    if word.is_empty() || word.starts_with('-') || Interpreter::of(word).is_some() {
        return None;
    }
    let launcher = Program { what: What::Script(word), arguments: &[] };
    named(&launcher, here)
}

// --- Java ---

/// The jar, or the main class without its package.
fn java(arguments: &[String], here: Directory<'_>) -> Option<String> {
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-jar" => return here.name(words.next()?).map(|name| without_version(&name).to_owned()),
            "-m" | "--module" => return main_class(words.next()?, here),
            _ if JAVA_VALUED.contains(&word) => {
                words.next();
            }
            // `@file` holds more arguments.
            _ if word.starts_with(['-', '@']) => {}
            _ => return main_class(word, here),
        }
    }
    None
}

/// `module/com.acme.Shop` → `Shop`; `Shop.java` → `Shop`.
fn main_class(class: &str, here: Directory<'_>) -> Option<String> {
    let class = stem(file_name(class));
    let name = class.rsplit('.').next().unwrap_or(class);
    if JAVA_LAUNCHERS.contains(&name) { here.name(".") } else { Some(name.to_owned()) }
}

/// `shop-1.2.3-SNAPSHOT` → `shop`: a version begins with a digit, and is dotted or comes last.
fn without_version(name: &str) -> &str {
    let version = |(at, _): &(usize, &str)| {
        let mut parts = name[at + 1..].split('-');
        let part = parts.next().unwrap_or_default();
        part.starts_with(|c: char| c.is_ascii_digit()) && (part.contains('.') || parts.next().is_none())
    };
    match name.match_indices('-').find(version) {
        Some((at, _)) if at > 0 => &name[..at],
        _ => name,
    }
}

// --- Paths ---

/// The directory a process runs in.
#[derive(Clone, Copy)]
struct Directory<'a>(&'a str);

impl Directory<'_> {
    /// The name of what `path` leads to from here: the file without its extension, or, where that says nothing
    /// (`index.js`, `dist`), the nearest folder that does.
    fn name(self, path: &str) -> Option<String> {
        // A descriptor (`bash <(…)`, `python3 /dev/stdin`): whatever came through it had a name elsewhere, or none.
        if path.starts_with("/dev/") || path.starts_with("/proc/") {
            return None;
        }
        let mut parts: Vec<&str> = Vec::new();
        let start = if path.starts_with('/') { "" } else { self.0 };
        for part in start.split('/').chain(path.split('/')) {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                _ => parts.push(part),
            }
        }
        let last = stem(parts.pop()?);
        let says_nothing = |name: &str| GENERIC.contains(&name) || name.bytes().all(|byte| byte.is_ascii_digit());
        if !says_nothing(last) {
            return Some(last.to_owned());
        }
        Some(parts.into_iter().rev().find(|folder| !says_nothing(folder)).unwrap_or(last).to_owned())
    }
}

/// A file name without the extension of a program.
fn stem(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && EXTENSIONS.contains(&extension) => stem,
        _ => name,
    }
}

// --- Tables ---

const NO_OPTIONS: Grammar = Grammar {
    names: &[],
    valued: "",
    attached: "",
    code: "",
    module: None,
    script: None,
    long_valued: &[],
    long_code: &[],
    subcommands: &[],
};

const GRAMMARS: &[Grammar] = &[
    Grammar {
        names: &["python", "pypy"],
        valued: "WXQ",
        code: "c",
        module: Some('m'),
        long_valued: &["--check-hash-based-pycs"],
        ..NO_OPTIONS
    },
    Grammar {
        names: &["node", "nodejs"],
        valued: "rC",
        code: "ep",
        long_valued: &[
            "--conditions",
            "--diagnostic-dir",
            "--disable-warning",
            "--dns-result-order",
            "--env-file",
            "--env-file-if-exists",
            "--experimental-loader",
            "--icu-data-dir",
            "--import",
            "--input-type",
            "--inspect-port",
            "--loader",
            "--max-http-header-size",
            "--openssl-config",
            "--redirect-warnings",
            "--require",
            "--title",
            "--unhandled-rejections",
            "--watch-path",
        ],
        long_code: &["--eval", "--print", "--run"],
        ..NO_OPTIONS
    },
    Grammar {
        names: &["bun", "deno"],
        valued: "rc",
        code: "e",
        long_valued: &["--config", "--cwd", "--env-file", "--import-map", "--preload", "--require"],
        long_code: &["--eval"],
        subcommands: &["run", "serve", "x"],
        ..NO_OPTIONS
    },
    Grammar { names: &["ruby"], valued: "ICEr", attached: "WKTFix0", code: "e", ..NO_OPTIONS },
    Grammar { names: &["perl"], valued: "I", attached: "MmCDFVdilx0", code: "eE", ..NO_OPTIONS },
    Grammar { names: &["php"], valued: "cdztS", code: "rBREa", script: Some('f'), ..NO_OPTIONS },
    Grammar {
        names: &["sh", "bash", "dash", "ash", "ksh", "zsh"],
        valued: "oO",
        code: "cs",
        long_valued: &["--init-file", "--rcfile"],
        ..NO_OPTIONS
    },
];

/// Programs whose own name says less than what they run.
const LAUNCHERS: &[(&[&str], Launches)] = &[
    (&["daphne", "granian", "gunicorn", "hypercorn", "uvicorn", "waitress-serve"], Launches::Application),
    (&["celery", "flask"], Launches::NamedByOption),
    (&["fastapi", "nodemon", "streamlit", "ts-node", "ts-node-dev", "tsx"], Launches::Script),
    (&["bundle"], Launches::Command),
    (
        &[
            "nest",
            "next",
            "next-server",
            "nuxt",
            "puma",
            "rackup",
            "rails",
            "react-scripts",
            "sidekiq",
            "thin",
            "unicorn",
            "vite",
        ],
        Launches::Folder,
    ),
];

/// File and folder names that say nothing of the service: frameworks prescribe them, or builds make them.
const GENERIC: &[&str] = &[
    "__init__", "__main__", "artisan", "asgi", "bin", "build", "config", "console", "current", "dist", "index", "lib",
    "main", "manage", "out", "releases", "src", "wsgi",
];

const EXTENSIONS: &[&str] = &[
    "bash", "cjs", "cts", "dll", "jar", "java", "js", "jsx", "mjs", "mts", "pex", "phar", "php", "pl", "py", "pyc",
    "pyz", "rb", "ru", "sh", "ts", "tsx", "war",
];

/// Options of the `java` launcher whose value is the next argument (java(1)).
const JAVA_VALUED: &[&str] = &[
    "--add-exports",
    "--add-modules",
    "--add-opens",
    "--add-reads",
    "--class-path",
    "--describe-module",
    "--enable-native-access",
    "--limit-modules",
    "--module-path",
    "--source",
    "--upgrade-module-path",
    "-classpath",
    "-cp",
    "-d",
    "-p",
];

/// Main classes that start another one, which they find in the jar: Spring Boot's.
const JAVA_LAUNCHERS: &[&str] = &["JarLauncher", "PropertiesLauncher", "WarLauncher"];

#[cfg(test)]
mod tests {
    use super::*;

    /// `line` is split at blanks; it runs in /srv/shop.
    fn name_of(executable: &str, line: &str) -> Option<String> {
        program(&ProcessFacts {
            executable: executable.to_owned(),
            directory: "/srv/shop".to_owned(),
            arguments: line.split(' ').map(str::to_owned).collect(),
            ..ProcessFacts::default()
        })
    }

    fn check(executable: &str, rows: &[(&str, &str)]) {
        for (line, name) in rows {
            let expected = (!name.is_empty()).then_some(*name);
            assert_eq!(name_of(executable, line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn python() {
        check(
            "/usr/bin/python3.11",
            &[
                ("python app.py", "app"),
                ("python3 -u app.py --token=s3cret", "app"),
                ("python3 -X dev -W ignore app.py", "app"),
                ("python3 -Xdev -Wignore app.py", "app"),
                ("python3 -- app.py", "app"),
                ("python3 /opt/cart/app.pyc", "app"),
                ("python3 main.py", "shop"),
                ("python3 src/main.py", "shop"),
                ("python3 /opt/cart/main.py", "cart"),
                ("python3 /opt/cart/__main__.py", "cart"),
                ("python3 /opt/cart", "cart"),
                ("python3 .", "shop"),
                ("python3 ../cart/main.py", "cart"),
                ("python3 /main.py", "main"),
                ("python3 manage.py runserver", "shop"),
                ("python3 -m http.server 8000", "http.server"),
                ("python3 -um cart.main", "cart"),
                ("python3 -mcart", "cart"),
                ("python3 -m main", "shop"),
                ("python3 /usr/local/bin/cart-server --port 80", "cart-server"),
                ("python3 -c import\u{a0}os;x='s3cret' app.py", ""),
                ("python3 -uc code", ""),
                ("python3 -", ""),
                ("python3 -u", ""),
                ("python3 -m", ""),
                ("python3 -W", ""),
                ("python3", ""),
                ("python3 -m ", ""),
                ("python3 a\nb.py", ""),
            ],
        );
    }

    #[test]
    fn python_servers() {
        check(
            "/usr/local/bin/python3",
            &[
                ("python3 /usr/local/bin/gunicorn cart:app", "cart"),
                ("python3 /usr/local/bin/gunicorn -b 0.0.0.0:80 -w 4 cart.wsgi:application", "cart"),
                ("python3 /usr/local/bin/gunicorn -b localhost:80 cart.web:create_app('prod')", "cart.web"),
                ("python3 /usr/local/bin/gunicorn -b unix:/run/x.sock cart.wsgi", "cart"),
                ("python3 /usr/local/bin/gunicorn cart.wsgi --workers 4", "cart"),
                ("python3 /usr/local/bin/gunicorn -c gunicorn.conf.py", "shop"),
                ("python3 /usr/local/bin/gunicorn --worker-class gevent", "shop"),
                ("python3 /usr/local/bin/uvicorn main:app --host ::1", "shop"),
                ("python3 /usr/local/bin/uvicorn cart.main:app --reload", "cart"),
                ("python3 -m uvicorn --port 80 cart:app", "cart"),
                ("python3 /usr/local/bin/hypercorn cart:app", "cart"),
                ("python3 /usr/local/bin/flask --app cart run", "cart"),
                ("python3 -m flask --app=src/cart.py:app run", "cart"),
                ("python3 -m flask --app cart:create_app run", "cart"),
                ("python3 /usr/local/bin/flask run", "shop"),
                ("python3 /usr/local/bin/celery -A cart worker", "cart"),
                ("python3 /usr/local/bin/fastapi run src/cart.py", "cart"),
                ("python3 /usr/local/bin/fastapi dev", "shop"),
            ],
        );
    }

    #[test]
    fn node() {
        check(
            "/usr/bin/node",
            &[
                ("node server.js", "server"),
                ("node --max-old-space-size=512 --enable-source-maps server.mjs", "server"),
                ("node -r dotenv/config server.js dotenv_config_path=x", "server"),
                ("node --require ./trace.js --import ./hook.mjs dist/server.js", "server"),
                ("node --inspect=0.0.0.0:9229 server.js", "server"),
                ("node --env-file .env server.js", "server"),
                ("node index.js", "shop"),
                ("node dist/index.js", "shop"),
                ("node dist/main", "shop"),
                ("node .", "shop"),
                ("node ./", "shop"),
                ("node /opt/cart/dist/src/index.js", "cart"),
                ("node /var/www/cart/releases/20261101/index.js", "cart"),
                ("node node_modules/.bin/ts-node -T src/cart.ts", "cart"),
                ("node /app/node_modules/.bin/next start", "shop"),
                ("node -e fetch('http://u:s3cret@h')", ""),
                ("node -pe 1", ""),
                ("node --eval=1", ""),
                ("node --eval 1", ""),
                ("node", ""),
            ],
        );
        check("/usr/local/bin/bun", &[("bun run index.ts", "shop"), ("bun cart.ts", "cart"), ("bun -e 1", "")]);
        check("/usr/bin/deno", &[("deno run -A --config deno.json cart.ts", "cart"), ("deno", "")]);
    }

    #[test]
    fn java() {
        check(
            "/usr/lib/jvm/java-17-openjdk-amd64/bin/java",
            &[
                ("java -jar cart.jar", "cart"),
                ("java -Xmx1g -Dpassword=s3cret -jar /opt/cart-1.2.jar --x=y", "cart"),
                ("java -jar cart-service-0.0.1-SNAPSHOT.jar", "cart-service"),
                ("java -jar cart-v2-1.0.jar", "cart-v2"),
                ("java -jar log4j-2-demo.jar", "log4j-2-demo"),
                ("java -jar cart-7.jar", "cart"),
                ("java -jar -1.jar", "-1"),
                ("java -cp a.jar:b.jar com.acme.Main", "Main"),
                ("java -classpath a.jar com.acme.Cart serve", "Cart"),
                ("java --add-opens java.base/java.lang=ALL-UNNAMED -p mods -m cart/com.acme.Cart", "Cart"),
                ("java -javaagent:agent.jar -ea @args Cart", "Cart"),
                ("java Cart.java", "Cart"),
                ("java /opt/demo/Cart.java", "Cart"),
                ("java -cp app org.springframework.boot.loader.launch.JarLauncher", "shop"),
                ("java -version", ""),
                ("java -jar", ""),
                ("java", ""),
            ],
        );
    }

    #[test]
    fn the_others() {
        check(
            "/usr/bin/ruby3.1",
            &[
                ("ruby app.rb", "app"),
                ("ruby -W0 -Ilib -rbundler/setup app.rb", "app"),
                ("ruby -I lib -r json app.rb", "app"),
                ("ruby bin/rails server", "shop"),
                ("ruby /usr/bin/bundle exec puma -p 80", "shop"),
                ("ruby /usr/bin/bundle exec ruby-cart", "ruby-cart"),
                ("ruby -e code", ""),
            ],
        );
        check(
            "/usr/bin/php8.2",
            &[
                ("php cart.php", "cart"),
                ("php -d memory_limit=1G -f cart.php", "cart"),
                ("php artisan serve", "shop"),
                ("php bin/console messenger:consume", "shop"),
                ("php -S 0.0.0.0:80 -t public router.php", "router"),
                ("php -S 0.0.0.0:80", ""),
                ("php -r code", ""),
            ],
        );
        check(
            "/usr/bin/perl",
            &[("perl -w -MIO::Socket cart.pl", "cart"), ("perl -wE code x", ""), ("perl -ne x", "")],
        );
        check(
            "/usr/bin/bash",
            &[
                ("/bin/bash ./cart.sh", "cart"),
                ("bash /dev/fd/63", ""),
                ("bash -eo pipefail /opt/cart/run.sh", "run"),
                ("bash -c curl\u{a0}-u\u{a0}me:s3cret x", ""),
                ("-bash", ""),
                ("bash", ""),
            ],
        );
        check(
            "/usr/bin/dotnet",
            &[("dotnet Shop.Api.dll", "Shop.Api"), ("dotnet exec --x y /app/Cart.dll", "Cart"), ("dotnet run", "")],
        );
        check("/bin/busybox", &[("/bin/httpd -f", "httpd"), ("busybox httpd", "busybox")]);
    }

    #[test]
    fn titles_that_programs_write_over_their_arguments() {
        let title = |executable: &str, title: &str| {
            program(&ProcessFacts {
                executable: executable.to_owned(),
                directory: "/srv/shop".to_owned(),
                arguments: vec![title.to_owned()],
                ..ProcessFacts::default()
            })
        };
        for (executable, written, name) in [
            ("/usr/bin/python3", "gunicorn: master [cart.wsgi:application]", Some("cart")),
            ("/usr/bin/python3", "gunicorn: worker [cart]", Some("cart")),
            ("/usr/bin/python3", "celeryd: celery@host:MainProcess", Some("celeryd")),
            ("/usr/bin/ruby", "puma 6.4.0 (tcp://0.0.0.0:3000) [my-cart]", Some("my-cart")),
            ("/usr/bin/ruby", "sidekiq 7.2.0 cart [0 of 5 busy]", Some("shop")),
            ("/usr/bin/ruby", "unicorn worker[0] -c config.rb", Some("shop")),
            ("/usr/bin/node", "next-server (v14.1.0)", Some("shop")),
            ("/usr/bin/node", "PM2 v5.3.0: God Daemon (/root/.pm2)", Some("PM2")),
            ("/usr/bin/node", "cart", Some("cart")),
            ("/usr/bin/node", "/usr/bin/node", None),
            ("/usr/bin/node", "", None),
            // Not interpreters: the executable is the name.
            ("/usr/sbin/nginx", "nginx: worker process", None),
            ("/usr/lib/postgresql/14/bin/postgres", "postgres: shop shop 10.0.0.1(5432) SELECT", None),
        ] {
            assert_eq!(title(executable, written).as_deref(), name, "{written}");
        }
    }

    #[test]
    fn other_executables_are_their_own_programs() {
        check("/usr/sbin/nginx", &[("nginx -c /etc/nginx/nginx.conf", "")]);
        check("/opt/node_exporter", &[("node_exporter --web.config=x.js", "")]);
        check("", &[("python3 app.py", "")]);
    }
}
