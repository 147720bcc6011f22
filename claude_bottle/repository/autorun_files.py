"""Recognize files that tools run automatically in a checkout, or that everyday commands run."""

_FOLDERS = """
    editors:    .vscode .idea .fleet .zed .devcontainer .vs
    agents:     .claude .codex .cursor .gemini .kiro .opencode .clinerules
    git:        .husky .githooks .git-hooks
    forges:     .circleci .buildkite .gitlab .woodpecker .teamcity .github/workflows .github/actions .gitea .forgejo
    tools:      .direnv .mise .cargo .yarn .mvn .bundle
"""
_NAMES = """
    shells:     .envrc .mise.toml mise.toml .mise.local.toml mise.local.toml .tool-versions .bashrc .bash_profile
                .profile .zshrc .zshenv .zprofile .bash_login .bash_logout .zlogin .gdbinit .lldbinit .pdbrc .rprofile
    editors:    .vimrc .exrc .nvim.lua .lvimrc .dir-locals.el .ycm_extra_conf.py .devcontainer.json
    agents:     .mcp.json claude.md claude.local.md agents.md gemini.md .cursorrules .windsurfrules
                copilot-instructions.md
    git:        .gitattributes .gitmodules .gitconfig .lfsconfig .pre-commit-config.yaml .lintstagedrc lefthook.yml
                lefthook-local.yml lefthook.yaml .lefthook.yml head commondir
    githooks(5): applypatch-msg pre-applypatch post-applypatch pre-commit pre-merge-commit prepare-commit-msg
                commit-msg post-commit pre-rebase post-checkout post-merge pre-push post-rewrite reference-transaction
                post-index-change pre-auto-gc fsmonitor-watchman sendemail-validate update
    forges:     .gitlab-ci.yml .travis.yml .drone.yml .woodpecker.yml azure-pipelines.yml bitbucket-pipelines.yml
                jenkinsfile appveyor.yml .appveyor.yml cloudbuild.yaml .cirrus.yml
    make:       makefile gnumakefile bsdmakefile justfile .justfile taskfile.yml taskfile.yaml rakefile cmakelists.txt
                meson.build .bazelrc workspace workspace.bazel build.bazel module.bazel sconstruct wscript configure
    java:       build.gradle build.gradle.kts settings.gradle settings.gradle.kts gradlew gradlew.bat mvnw mvnw.cmd
                pom.xml build.sbt
    javascript: package.json .npmrc .yarnrc .yarnrc.yml .pnpmfile.cjs .pnp.cjs pnpm-workspace.yaml binding.gyp
                .eslintrc.js .eslintrc.cjs .babelrc.js .mocharc.js gulpfile.js gruntfile.js
    python:     setup.py setup.cfg pyproject.toml conftest.py pytest.ini mypy.ini .pylintrc .coveragerc tox.ini
                noxfile.py sitecustomize.py usercustomize.py
    others:     build.rs cargo.toml package.swift mix.exs podfile gemfile dockerfile containerfile compose.yaml
                compose.yml docker-compose.yaml docker-compose.yml vagrantfile flake.nix shell.nix default.nix
                composer.json rust-toolchain.toml directory.build.props
"""
_FILES = frozenset(_NAMES.split())
_ENDINGS = (".mk", ".code-workspace", ".pth", ".csproj", ".fsproj", ".vcxproj", ".props", ".targets", ".gemspec")
_CONFIGURED = "eslint vite vitest webpack rollup jest babel next postcss tailwind prettier"
_TOOLS = tuple(f"{tool}.config." for tool in _CONFIGURED.split())  # .js, .cjs, .mjs, .ts


def runs_by_itself(path: str) -> bool:
    """Return whether a path is such a file; case is ignored, as on macOS."""
    whole = f"/{path.casefold()}/"
    name = whole.split("/")[-2]
    named = name in _FILES or name.endswith(_ENDINGS) or name.startswith(_TOOLS)
    return named or any(f"/{part}/" in whole for part in _FOLDERS.split())
