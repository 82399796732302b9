# Runs a shell and carries what it says over hvc0, which drops what its reader is too late for.
#
# To the driver go packets: `TOKEN KIND NUMBER LENGTH SUM` and a newline, then LENGTH bytes whose
# sum is SUM. KIND is D for what the shell prints, numbered from 0; H where an answer is missing,
# with the number of the next D; L where what came from the driver is out of step.
# From the driver come `KIND NUMBER LENGTH` and a newline, then LENGTH bytes: D what the shell reads,
# numbered from 0; A how many packets have come; S a signal for the first process; Q the end.
#
# No more goes out unanswered than the host's socket holds in any case.
use strict;
use warnings;

my $CHUNK      = 1 << 13;
my $UNANSWERED = 4;
my $PATIENCE   = 1;
my ($token)    = @ARGV;
my ( $sent, $answered, $taken, $came, $waiting ) = ( 0, 0, 0, '', '' );

pipe my $input,  my $to_shell or die;
pipe my $output, my $printed  or die;
defined( my $shell = fork ) or die;
if ( !$shell ) {
    open STDIN,  '<&', $input   or die;
    open STDOUT, '>&', $printed or die;
    close $_ for $input, $to_shell, $output, $printed;
    exec '/bin/sh';
}
close $_ for $input, $printed;
$to_shell->blocking(0);
$SIG{PIPE} = 'IGNORE';

sub packet {
    my ( $kind, $data ) = @_;
    my $text = join( ' ', $token, $kind, $sent, length $data, unpack '%32C*', $data ) . "\n$data";
    while ( length $text ) {
        my $n = syswrite STDOUT, $text;
        exit if !defined $n && !$!{EINTR};
        substr $text, 0, $n // 0, '';
    }
}

sub obey {
    while ( length $came ) {
        if ( $came !~ /^([DASQ]) (\d+) (\d+)\n/ ) {
            return if length $came < 64 && $came !~ /\n/;
            packet( 'L', '' );
            exit;
        }
        my ( $kind, $number, $length, $header ) = ( $1, $2, $3, $+[0] );
        return if length $came < $header + $length;
        my $data = substr $came, $header, $length;
        substr $came, 0, $header + $length, '';
        exit if $kind eq 'Q';
        if ( $kind eq 'A' ) { $answered = $number; next }
        if ( $kind eq 'S' ) { kill $number, 1; next }
        if ( $number != $taken++ ) { packet( 'L', '' ); exit }
        $waiting .= $data;
    }
}

packet( 'D', '' );
$sent++;
while (1) {
    my ( $r, $w ) = ( '', '' );
    vec( $r, fileno STDIN,     1 ) = 1;
    vec( $r, fileno $output,   1 ) = 1 if $sent - $answered < $UNANSWERED;
    vec( $w, fileno $to_shell, 1 ) = 1 if length $waiting;
    my $n = select $r, $w, undef, $sent > $answered ? $PATIENCE : undef;
    next if $n < 0;
    packet( 'H', '' ) if !$n;
    if ( vec $r, fileno STDIN, 1 ) {
        my $got = sysread STDIN, $came, 1 << 16, length $came;
        exit if defined $got ? !$got : !$!{EINTR};
        obey();
    }
    if ( vec $w, fileno $to_shell, 1 ) {
        my $n = syswrite $to_shell, $waiting, 1 << 16;
        exit if !defined $n && !$!{EAGAIN} && !$!{EINTR};
        substr $waiting, 0, $n // 0, '';
    }
    if ( vec $r, fileno $output, 1 ) {
        sysread( $output, my $data, $CHUNK ) or exit;
        packet( 'D', $data );
        $sent++;
    }
}
