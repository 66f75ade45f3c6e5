/**
 * The executable that runtimes find: sh(1), which asks the daemon with curl(1), in a quarter of the time. Where no
 * daemon attaches containers, it starts Node, which does it by itself.
 */
import { quote } from '../../shell.ts';
import { FIELDS } from './form.ts';

/** Where on this machine the shim finds what it needs. */
export interface ShimPlaces {
  runDir: string;
  /** Node and the plugin's entry. */
  node: string;
  plugin: string;
}

/** Seconds. Where thousands of containers go at once, the last waits long; a daemon that takes longer is stuck. */
const PATIENCE = 120;

/** `signature` is a line that tells who made the file. */
export function shimOf({ runDir, node, plugin }: ShimPlaces, signature: string): string {
  const fields = FIELDS.map((name) => `--data-urlencode "${name}=$${name}"`).join(' \\\n  ');
  return `#!/bin/sh
# inlay-cni, the CNI plugin of Inlay. ${signature}
# A daemon that attaches containers (inlay up --attach on) is asked, because Node takes longer to start than the
# work does. Where there is none, Node does it.
socket=${quote(`${runDir}/attach.sock`)}
node=${quote(node)}
plugin=${quote(plugin)}

# fail CODE MESSAGE: an error as CNI has them, in the configuration's version, where that is plainly there.
fail() {
  version=$(printf %s "\${config-$(cat)}" | sed -n '/"cniVersion" *: *"[0-9.]*"/{
    s/.*"cniVersion" *: *"\\([0-9.]*\\)".*/\\1/p
    q
  }')
  printf '{"cniVersion":"%s","code":%s,"msg":"%s"}\\n' "\${version:-1.0.0}" "$1" "$2"
  exit 1
}

require_node() {
  [ -x "$node" ] && [ -f "$plugin" ] && return
  [ "$CNI_COMMAND" = STATUS ] && fail 50 "no daemon attaches containers on this machine"
  fail 11 "no daemon attaches containers on this machine, and there is no Node to do it without one"
}

if [ ! -S "$socket" ] || ! command -v curl >/dev/null 2>&1; then
  require_node
  exec "$node" "$plugin"
fi

# Without cat(1), which is another process: a configuration is short.
line='
'
config=
while IFS= read -r text || [ -n "$text" ]; do config=$config$text$line; done
config=\${config%"$line"}

# Silent: what curl fails at, Node may do. A form: no character of a variable means anything on the way.
answer=$(curl -q -s --noproxy '*' --max-time ${PATIENCE} --unix-socket "$socket" \\
  -w '\\n%{http_code}' \\
  ${fields} \\
  --data-urlencode config@- http://inlay/cni <<END
$config
END
)
code=$?
body=\${answer%"$line"*}
case $code-\${answer##*"$line"} in
  0-200)
    printf %s "$body"
    ;;
  0-400 | 0-503)
    # An error as the plugin has them.
    printf %s "$body"
    exit 1
    ;;
  28-* | 0-500)
    # It may be at work still.
    fail 11 "the daemon did not answer (curl: $code)"
    ;;
  *)
    # The configuration is of another daemon, or too long for one; or curl cannot reach the daemon; or it has just
    # ended, be it before it has answered: what it had begun to attach is whole or gone then.
    require_node
    printf %s "$config" | "$node" "$plugin"
    ;;
esac
`;
}
