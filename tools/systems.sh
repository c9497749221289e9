# Other Linux systems in folders of their own, to run on the drivers that they carry. Sourced by `coop` and `drivers`, as root.
# shellcheck shell=bash
driver_packages=mesa-vulkan-drivers,libvulkan1
mounted=()
trap 'for place in "${mounted[@]}"; do umount "$place"; done' EXIT

# make_system FOLDER SUITE debian|ubuntu PACKAGES: once, in about a minute.
make_system() {
    local folder=$1 suite=$2 packages=$4 script options
    # Each distribution has one script for all suites, those too that this machine's debootstrap does not know.
    case $3 in
        debian) script=sid options=() ;;
        ubuntu) script=gutsy options=(--components=main,universe) ;;
    esac
    if [ ! -e "$folder/made" ]; then
        command -v debootstrap >/dev/null || apt-get install -y -qq debootstrap >/dev/null
        # Without its keys, which Debian does not carry, the packages of Ubuntu go unchecked.
        [ "$3" = debian ] || [ -e /usr/share/keyrings/ubuntu-archive-keyring.gpg ] || options+=(--no-check-gpg)
        rm -rf "$folder"
        mkdir -p "$folder"
        debootstrap --variant=minbase "${options[@]}" --include="$packages" "$suite" "$folder" "" "$script" \
            >"$folder.log" 2>&1 || { tail "$folder.log" >&2; return 1; }
        touch "$folder/made"
    fi
    mount -t proc proc "$folder/proc"
    mount --bind /dev "$folder/dev"
    mounted+=("$folder/proc" "$folder/dev")
    mkdir -p "$folder/work"
}

# inside FOLDER COMMAND…: on its software driver.
inside() {
    local folder=$1 driver
    shift
    driver=$(cd "$folder" && ls usr/share/vulkan/icd.d/lvp_icd*.json)
    chroot "$folder" env VK_DRIVER_FILES="/$driver" HOME=/root "$@"
}
