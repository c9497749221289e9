// The last segment of the keys: takes (max, sum, accumulator) over and finishes.
const CARRY_IN: bool = true;
const CARRY_OUT: bool = false;
#bind read_write state
