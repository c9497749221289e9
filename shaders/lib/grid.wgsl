// One linear group number. The engine may cut the groups of one launch into several dispatches
// (time slices, limits on groups per axis), so a kernel decodes its tile from this number alone.
fn group_index(wid: vec3<u32>, nwg: vec3<u32>) -> u32 {
    return params.first_group + wid.x + nwg.x * (wid.y + nwg.y * wid.z);
}
