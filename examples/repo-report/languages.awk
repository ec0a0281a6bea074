# Which language a file is written in, by its name. identify(path) sets `language` and `kind`:
#   code      programs, style sheets, templates, queries
#   prose     text for people
#   config    settings and build descriptions that people edit
#   data      tables and documents that mostly machines write
#   generated lock files, minified and generated sources, this report itself
#   vendored  other people's sources kept in this repository
# One line a language: kind|language|extensions|whole names (both in lower case).

BEGIN {
    language_table = \
    "code|Ada|adb ads|\n" \
    "code|Assembly|asm s nasm|\n" \
    "code|Astro|astro|\n" \
    "code|Awk|awk gawk mawk|\n" \
    "code|Batch|bat cmd|\n" \
    "code|C|c|\n" \
    "code|C header|h|\n" \
    "code|C#|cs csx|\n" \
    "code|C++|cc cpp cxx c++ hh hpp hxx h++ ipp tpp inl ixx|\n" \
    "code|Clojure|clj cljs cljc edn|\n" \
    "code|CoffeeScript|coffee|\n" \
    "code|Common Lisp|lisp lsp asd cl|\n" \
    "code|Crystal|cr|\n" \
    "code|CSS|css|\n" \
    "code|CUDA|cu cuh|\n" \
    "code|D|d di|\n" \
    "code|Dart|dart|\n" \
    "code|Elixir|ex exs|\n" \
    "code|Elm|elm|\n" \
    "code|Emacs Lisp|el|.emacs\n" \
    "code|Erlang|erl hrl|rebar.config\n" \
    "code|F#|fs fsi fsx|\n" \
    "code|Fish|fish|\n" \
    "code|Fortran|f f77 f90 f95 f03 f08 for|\n" \
    "code|GDScript|gd|\n" \
    "code|GLSL|glsl vert frag geom comp|\n" \
    "code|Go|go|\n" \
    "code|GraphQL|graphql gql|\n" \
    "code|Groovy|groovy gvy|jenkinsfile\n" \
    "code|Haskell|hs lhs|\n" \
    "code|HTML|html htm xhtml|\n" \
    "code|Java|java|\n" \
    "code|JavaScript|js mjs cjs jsx|\n" \
    "code|Jinja|jinja jinja2 j2|\n" \
    "code|Julia|jl|\n" \
    "code|Kotlin|kt kts|\n" \
    "code|Less|less|\n" \
    "code|Lua|lua|\n" \
    "code|MATLAB|m mlx|\n" \
    "code|Metal|metal|\n" \
    "code|Nim|nim nims|\n" \
    "code|Nix|nix|\n" \
    "code|Objective-C++|mm|\n" \
    "code|OCaml|ml mli mll mly|\n" \
    "code|Pascal|pas pp dpr lpr|\n" \
    "code|Perl|pl pm pod t|\n" \
    "code|PHP|php phtml|\n" \
    "code|PowerShell|ps1 psm1 psd1|\n" \
    "code|Prolog|pro prolog|\n" \
    "code|Protocol Buffers|proto|\n" \
    "code|Pug|pug jade|\n" \
    "code|Python|py pyi pyw pyx|sconstruct sconscript wscript\n" \
    "code|R|r|.rprofile\n" \
    "code|Racket|rkt|\n" \
    "code|Roff|man mdoc roff|\n" \
    "code|Ruby|rb erb gemspec rake ru|gemfile rakefile podfile vagrantfile brewfile fastfile guardfile capfile\n" \
    "code|Rust|rs|\n" \
    "code|Sass|sass scss|\n" \
    "code|Scala|scala sc sbt|\n" \
    "code|Scheme|scm ss sld|\n" \
    "code|Shell|sh bash zsh ksh dash bats|configure gradlew mvnw .bashrc .bash_profile .profile .zshrc .envrc apkbuild pkgbuild\n" \
    "code|Solidity|sol|\n" \
    "code|SQL|sql psql ddl|\n" \
    "code|Starlark|bzl star bazel|build workspace tiltfile\n" \
    "code|Svelte|svelte|\n" \
    "code|Swift|swift|\n" \
    "code|Tcl|tcl tk|\n" \
    "code|Thrift|thrift|\n" \
    "code|TypeScript|ts tsx mts cts|\n" \
    "code|Vala|vala vapi|\n" \
    "code|Verilog|v sv svh vh|\n" \
    "code|VHDL|vhd vhdl|\n" \
    "code|Vim script|vim|.vimrc vimrc\n" \
    "code|Visual Basic|vb vbs bas|\n" \
    "code|Vue|vue|\n" \
    "code|WebAssembly|wat wast|\n" \
    "code|XSLT|xsl xslt|\n" \
    "code|Yacc and Lex|y yy l ll lex|\n" \
    "code|Zig|zig zon|\n" \
    "config|CMake|cmake|cmakelists.txt\n" \
    "config|Dockerfile|dockerfile containerfile|dockerfile containerfile\n" \
    "config|Git settings||.gitignore .gitattributes .gitmodules .mailmap .git-blame-ignore-revs\n" \
    "config|Go module|mod|go.work\n" \
    "config|Gradle|gradle|\n" \
    "config|HCL|hcl tf tfvars|\n" \
    "config|INI|ini cfg conf properties cnf desktop service socket timer|.editorconfig .npmrc .pylintrc .flake8 .coveragerc .curlrc .wgetrc .hgrc\n" \
    "config|Ignore list||.dockerignore .npmignore .eslintignore .prettierignore .helmignore .hgignore .gcloudignore\n" \
    "config|Just|just|justfile .justfile\n" \
    "config|Makefile|mk mak make|makefile gnumakefile makefile.am makefile.in kbuild kconfig\n" \
    "config|Meson||meson.build meson_options.txt meson.options\n" \
    "config|M4|m4 ac|\n" \
    "config|MSBuild|csproj vbproj fsproj vcxproj props targets sln slnx|\n" \
    "config|RPM spec|spec|\n" \
    "config|TOML|toml|pipfile\n" \
    "config|YAML|yml yaml|.clang-format .clang-tidy .yamllint .gemrc\n" \
    "data|CSV and TSV|csv tsv psv|\n" \
    "data|Diff|diff patch|\n" \
    "data|Gettext|po pot|\n" \
    "data|GeoJSON|geojson|\n" \
    "data|JSON|json jsonc json5 webmanifest|.babelrc .eslintrc .prettierrc .jshintrc .swcrc\n" \
    "data|JSON Lines|jsonl ndjson|\n" \
    "data|Jupyter Notebook|ipynb|\n" \
    "data|Log|log|\n" \
    "data|SVG|svg|\n" \
    "data|Text|txt text|\n" \
    "data|XML|xml xsd wsdl plist xlf rss atom|\n" \
    "prose|AsciiDoc|adoc asciidoc asc|\n" \
    "prose|BibTeX|bib|\n" \
    "prose|Licence||license licence copying license.txt licence.txt copying.lesser unlicense notice license-mit license-apache\n" \
    "prose|Markdown|md markdown mdx mkd|\n" \
    "prose|Org|org|\n" \
    "prose|Plain text||readme readme.txt authors contributors changelog changes news install todo maintainers codeowners history thanks\n" \
    "prose|reStructuredText|rst rest|\n" \
    "prose|TeX|tex sty cls ltx dtx|\n" \
    "prose|Texinfo|texi texinfo|\n" \
    "prose|Typst|typ|\n" \
    "generated|Lock file|lock lockb|package-lock.json npm-shrinkwrap.json pnpm-lock.yaml go.sum packages.lock.json mix.lock package.resolved gradle.lockfile cargo.lock .terraform.lock.hcl\n" \
    "generated|Snapshot|snap|\n" \
    "generated|Source map|map|\n"

    n = split("sh Shell bash Shell dash Shell ksh Shell zsh Shell ash Shell bats Shell fish Fish python Python pypy Python " \
        "perl Perl ruby Ruby node JavaScript nodejs JavaScript deno TypeScript bun TypeScript awk Awk gawk Awk mawk Awk " \
        "php PHP lua Lua luajit Lua Rscript R tclsh Tcl wish Tcl make Makefile groovy Groovy elixir Elixir escript Erlang " \
        "julia Julia guile Scheme racket Racket runhaskell Haskell swift Swift pwsh PowerShell", language_word, " ")
    for (language_i = 1; language_i < n; language_i += 2) language_of_program[language_word[language_i]] = language_word[language_i + 1]

    language_lines = split(language_table, language_line, "\n")
    for (language_i = 1; language_i < language_lines; language_i++) {
        split(language_line[language_i], language_field, "|")
        n = split(language_field[3], language_word, " ")
        for (language_k = 1; language_k <= n; language_k++) {
            kind_of_end[language_word[language_k]] = language_field[1]
            language_of_end[language_word[language_k]] = language_field[2]
        }
        n = split(language_field[4], language_word, " ")
        for (language_k = 1; language_k <= n; language_k++) {
            kind_of_name[language_word[language_k]] = language_field[1]
            language_of_name[language_word[language_k]] = language_field[2]
        }
    }
}

function identify(path,    name, end) {
    path = tolower(path)
    name = path
    sub(/^.*\//, "", name)
    end = name
    if (!sub(/^.*\./, "", end)) end = ""

    language = "Other"
    kind = "data"
    if (name in kind_of_name) {
        language = language_of_name[name]
        kind = kind_of_name[name]
    } else if (end in kind_of_end && end != "") {
        language = language_of_end[end]
        kind = kind_of_end[end]
    } else if (name ~ /^(dockerfile|containerfile|makefile|jenkinsfile)[.-]/) {
        end = name
        sub(/[.-].*/, "", end)
        language = language_of_name[end]
        kind = kind_of_name[end]
    } else if (name ~ /^[a-z][^.]*\.[1-8]$/) {
        # A manual page; 3.11.2 is none.
        language = "Roff"
        kind = "code"
    }

    if (path ~ /^repo-report\// || name ~ /[.-]min\.(js|css|mjs|html)$/ || name ~ /\.pb\.(go|cc|h)$/ ||
        name ~ /_pb2(_grpc)?\.pyi?$/ || name ~ /\.(g|freezed)\.dart$/ || name ~ /[._]generated\.[a-z]+$/)
        kind = "generated"
    if (path ~ /(^|\/)(node_modules|bower_components|vendor|vendored|third_party|third-party|thirdparty)\//)
        kind = "vendored"
}

# The same for a file whose name says nothing, by its first line: "#!/usr/bin/env -S python3 -u".
function identify_by_first_line(text,    n, i, word, program) {
    sub(/^#![ \t]*/, "", text)
    n = split(text, word, /[ \t\r]+/)
    for (i = 1; i <= n; i++) {
        program = word[i]
        sub(/^.*\//, "", program)
        if (program != "env" && program !~ /^-/ && program !~ /=/) break
    }
    sub(/[0-9.]+$/, "", program)
    if (!(program in language_of_program)) return
    language = language_of_program[program]
    if (kind == "data") kind = "code"
}
