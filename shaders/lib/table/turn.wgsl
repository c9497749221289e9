// Tokens on a grid.
#bind read turn
#import turn
