# Other Linux systems in folders of their own, to run on the drivers that they carry. Sourced by `coop` and `drivers`, as root.
# shellcheck shell=bash
driver_packages=mesa-vulkan-drivers,libvulkan1
mounted=()
trap 'for place in "${mounted[@]}"; do umount "$place"; done' EXIT

# make_system FOLDER SUITE MIRROR PACKAGES: once, in about a minute.
make_system() {
    local folder=$1 suite=$2 mirror=$3 packages=$4
    if [ ! -e "$folder/made" ]; then
        command -v debootstrap >/dev/null || apt-get install -y -qq debootstrap >/dev/null
        rm -rf "$folder"
        mkdir -p "$folder"
        # Each distribution has one script for all suites, those too that this machine's debootstrap does not know.
        case $mirror in
            *ubuntu*) set -- main,universe gutsy ;;
            *) set -- main sid ;;
        esac
        debootstrap --variant=minbase --components="$1" --include="$packages" "$suite" "$folder" "$mirror" "$2" \
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
