# Before the program is removed, and not before another version replaces it. A filter without a program could be neither seen nor taken
# off, so it goes first; where that fails, the package stays.

pins=/sys/fs/bpf/sipguard

if [ -d /run/systemd/system ]; then
    systemctl stop sipguard-serve.service 'sipguard@*.service' >/dev/null || true
fi
if [ -d "$pins" ] && ! /usr/sbin/sipguard detach --all; then
    echo "sipguard: the filter could not be taken off, so the program stays that can do it" >&2
    exit 1
fi
for of in "$pins"@*; do
    [ -d "$of/links" ] || continue
    name=$(printf %s "${of#"$pins"@}" | sed 's/%2E/./g')
    if ! /usr/sbin/sipguard detach --all --container "$name"; then
        echo "sipguard: the filter of container $name could not be taken off, so the program stays that can do it" >&2
        exit 1
    fi
done
